// The debates of a run: loads their parts, filters and sorts the table, and opens a debate beside its story.
// All text is put into the page as text, never as markup.
"use strict";
(() => {
const room = document.getElementById("debates");
const catalog = JSON.parse(room.dataset.catalog);
const list = room.querySelector(".list tbody");
if (!list) return;
const form = room.querySelector("form"), found = room.querySelector(".found");
const reader = room.querySelector("dialog"), body = reader.querySelector(".body");
const AT = Object.fromEntries(catalog.columns.map((name, place) => [name, place]));
const PAGE = 50, FILTERS = ["q", "protocol", "player", "other", "verdict", "quotes", "failure", "sort"];
let table = null, rows = [], page = 0, sure = "", shown = null;

// Parts: packed text that stands in the page, or scripts beside it that call debates(key, text).
const waiting = new Map(), unpacked = new Map();
window.debates = (key, text) => waiting.get(key)?.(text);
function load(key) {
  if (!unpacked.has(key)) unpacked.set(key, fetchPart(key).then(unpack));
  return unpacked.get(key);
}
function fetchPart(key) {
  const inside = [...document.querySelectorAll("[data-part]")].find(part => part.dataset.part === key);
  if (inside) return Promise.resolve(inside.textContent);
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    waiting.set(key, text => { waiting.delete(key); script.remove(); resolve(text); });
    script.onerror = () => { unpacked.delete(key); reject(new Error(`debates/${key}.js is not beside this page`)); };
    script.src = `debates/${key}.js`;
    document.head.append(script);
  });
}
async function unpack(text) {
  const letters = atob(text), bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// Elements. Controls that change the direction of writing, and other controls, are written out.
const visible = text => String(text)
  .replace(/[\u0000-\u0008\u000b-\u001f\u007f\ufffe\uffff]/g, "\ufffd")
  .replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g,
    c => `[U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}]`);
function make(tag, name, ...children) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  for (const child of children.flat())
    if (child != null) element.append(child instanceof Node ? child : visible(child));
  return element;
}
const percent = p => `${(100 * p).toFixed(1)} %`;

// Address: #debates?stage=tournament&player=dpo&id=08c1...
function address(id) {
  const query = new URLSearchParams({stage: form.stage.value});
  for (const name of FILTERS) if (form[name].value) query.set(name, form[name].value);
  if (sure) query.set("sure", sure);
  if (id) query.set("id", id);
  return `#debates?${query}`;
}
function remember(id) {
  history.replaceState(null, "", address(id));
}
async function follow() {
  if (!location.hash.startsWith("#debates?")) { if (reader.open) reader.close(); return; }
  const query = new URLSearchParams(location.hash.slice("#debates?".length));
  const stage = query.get("stage");
  for (const field of FILTERS) form[field].value = "";
  if (catalog.sets.some(set => set[0] === stage)) form.stage.value = stage;
  await open(query);
  const id = query.get("id");
  if (id) show(rows.findIndex(row => row[AT.id] === id));
  else { if (reader.open) reader.close(); room.scrollIntoView(); }
}

// Table
async function open(query) {
  const [, key] = catalog.sets.find(set => set[0] === form.stage.value);
  try {
    found.textContent = "Loading\u2026";
    const loaded = await load(`${key}-rows`);
    if (table !== loaded) {
      loaded.key = key;
      loaded.order ??= loaded.rows.map((row, index) => index);
      loaded.search ??= loaded.rows.map(row => [
        ...loaded.questions[row[AT.question]].filter(value => typeof value === "string"), row[AT.id],
        loaded.protocols[row[AT.protocol]], name(loaded, row[AT.a]), name(loaded, row[AT.b])].join("\n").toLowerCase());
      table = loaded;
    }
  } catch (error) {
    found.textContent = `${error.message}; keep the folder debates/ with the page, or open share.html.`;
    return;
  }
  choices("protocol", table.protocols, "any");
  choices("player", table.players, "any");
  choices("other", table.players, "anyone");
  choices("failure", [...(table.failures.length ? ["none", "any failure"] : ["none"]), ...table.failures], "any");
  sure = query?.get("sure") ?? "";
  for (const field of FILTERS) {
    if (query?.has(field)) form[field].value = query.get(field);
    if (form[field].selectedIndex === -1) form[field].value = "";
  }
  filter();
}
const name = (from, player) => player == null ? "" : from.players[player];
function choices(field, values, any) {
  const before = form[field].value;
  form[field].replaceChildren(new Option(any, ""), ...values.map(value => new Option(visible(value), value)));
  if (values.includes(before)) form[field].value = before;
}
function filter() {
  const want = Object.fromEntries(FILTERS.map(field => [field, form[field].value]));
  const words = want.q.toLowerCase().split(/\s+/).filter(Boolean);
  const place = (values, value) => value === "" ? null : values.indexOf(value);
  const protocol = place(table.protocols, want.protocol), player = place(table.players, want.player);
  const other = place(table.players, want.other);
  const [least, most] = sure ? sure.split("-").map(Number) : [0, 1];
  const fits = index => {
    const row = table.rows[index], a = row[AT.a], b = row[AT.b];
    if (protocol !== null && row[AT.protocol] !== protocol) return false;
    if (player !== null && other !== null) {
      if (!(a === player && b === other) && !(a === other && b === player)) return false;
    } else if ((player !== null && a !== player && b !== player) || (other !== null && a !== other && b !== other))
      return false;
    if (want.verdict && want.verdict !== {true: "right", false: "wrong", null: "even"}[row[AT.right]]) return false;
    const quotes = row[AT.exact] + row[AT.near] + row[AT.invalid];
    if (want.quotes === "valid" && (!quotes || row[AT.invalid])) return false;
    if (want.quotes === "invalid" && !row[AT.invalid]) return false;
    if (want.quotes === "none" && quotes) return false;
    const failure = row[AT.failure];
    if (want.failure === "none" ? failure !== null : want.failure === "any failure" ? failure === null
      : want.failure && table.failures[failure] !== want.failure) return false;
    // A bin of the calibration figure; the last one holds both of its ends.
    if (sure && !(confidence(row) >= least && (confidence(row) < most || most === 1))) return false;
    return words.every(word => table.search[index].includes(word));
  };
  rows = table.order.filter(fits).map(index => table.rows[index]);
  const by = {surer: row => -confidence(row), unsurer: confidence, longer: row => -row[AT.words],
    shorter: row => row[AT.words], surprise: row => -(row[AT.surprise] ?? -1), expected: row => row[AT.surprise] ?? 99,
  }[want.sort];
  if (by) rows.sort((one, two) => by(one) - by(two));
  page = 0;
  draw();
}
const confidence = row => row[AT.p] === null ? 0 : Math.max(row[AT.p], 1 - row[AT.p]);
function draw() {
  const first = page * PAGE;
  list.replaceChildren(...rows.slice(first, first + PAGE).map(line));
  const right = rows.filter(row => row[AT.right] === true).length;
  const decided = right + rows.filter(row => row[AT.right] === false).length;
  found.textContent = `${rows.length.toLocaleString("en")} of ${table.rows.length.toLocaleString("en")} debates`
    + (decided ? `; the judge is right in ${percent(right / decided)}` : "")
    + (sure ? `; confidence ${sure.split("-").map(edge => Math.round(100 * edge)).join(" to ")} %` : "")
    + (rows.length > PAGE ? `; ${first + 1} to ${Math.min(first + PAGE, rows.length)} shown` : "") + ".";
  room.querySelector(".earlier").disabled = page === 0;
  room.querySelector(".later").disabled = first + PAGE >= rows.length;
}
const verdict = row => row[AT.failure] !== null ? `failed: ${table.failures[row[AT.failure]]}`
  : row[AT.p] === null ? "no verdict" : row[AT.right] === null ? "even or unknown" : row[AT.right] ? "right" : "wrong";
function line(row) {
  const [, question, a, b] = table.questions[row[AT.question]];
  const link = make("a", "", question);
  link.href = address(row[AT.id]);
  const number = value => make("td", "num", value);
  const quotes = make("td", "counts", ["exact", "near", "invalid"].filter(look => row[AT[look]]).map(look =>
    make("mark", look, row[AT[look]])));
  const players = [row[AT.a], row[AT.b]].filter(player => player !== null).map(player => name(table, player));
  return make("tr", "", make("th", "", link, make("span", "answers", `${a} / ${b}`)),
    make("td", "", table.protocols[row[AT.protocol]]), make("td", "", players.join(" \u00b7 ")),
    make("td", row[AT.right] === false ? "wrong" : "", verdict(row)),
    number(row[AT.p] === null ? "\u2013" : (100 * confidence(row)).toFixed(0)),
    number(row[AT.surprise] === null ? "\u2013" : row[AT.surprise].toFixed(2)), number(row[AT.words]), quotes);
}

// Reader
async function show(index) {
  const row = rows[index];
  if (!row) {
    found.textContent = "The debate of this link is not among these; a sample holds few of them.";
    return;
  }
  shown = index;
  const [debate, key] = [(await load(`${table.key}-${row[AT.part]}`))[row[AT.place]], row[AT.id]];
  const story = debate.story ? (await load(`story-${debate.story[0]}`))[debate.story[1]] : "";
  if (shown !== index) return; // another was opened while this one was loading
  body.replaceChildren(...laidOut(row, debate, story));
  const link = reader.querySelector(".link");
  link.href = address(key);
  remember(key);
  reader.querySelector(".previous").disabled = index === 0;
  reader.querySelector(".next").disabled = index === rows.length - 1;
  if (!reader.open) reader.showModal();
  body.scrollTop = 0;
  const first = body.querySelector(".passage mark"), box = body.querySelector(".passage .whole");
  if (first && box) box.scrollTop = first.offsetTop - box.offsetTop - 60;
}
function laidOut(row, debate, story) {
  const [id, question, a, b, correct, group, source] = table.questions[row[AT.question]];
  const seats = [a, b].map((answer, side) => {
    const p = row[AT.p] === null ? null : side ? 1 - row[AT.p] : row[AT.p];
    const track = make("span", "track", make("span", ""));
    track.firstChild.style.width = `${100 * (p ?? 0)}%`;
    return make("div", `seat${correct === side ? " right" : ""}`,
      make("p", "side", `Side ${"AB"[side]} \u00b7 ${name(table, row[side ? AT.b : AT.a]) || "nobody argues"}`),
      make("p", "answer", answer),
      make("p", "meta", correct === null ? "correctness unknown" : correct === side ? "\u2713 correct" : "\u2717 wrong"),
      p === null ? null : make("p", "p", track, ` judge ${percent(p)}`));
  });
  const speeches = make("div", "speeches");
  let turn = 0;
  for (const [side, player, at, pieces, origin] of debate.speeches) {
    if (at !== turn) { speeches.append(...between(debate, turn, at)); turn = at; }
    const text = make("div", "text", pieces.flatMap(piece => speechPiece(...piece)));
    speeches.append(make("article", `speech ${side}`, make("p", "side", `${side} \u00b7 ${player} \u00b7 turn ${at + 1}`),
      text, origin ? make("p", "meta", origin) : null));
  }
  speeches.append(...between(debate, turn));
  if (!debate.speeches.length) speeches.append(make("p", "note", "Nobody speaks here."));
  if (debate.hidden) speeches.append(make("p", "note", "Scratchpads were hidden from the other side and the judge."));
  const passage = make("aside", "passage", make("h4", "", story ? "Story" : "This question has no story."),
    story ? make("div", "text whole", storyPieces(story, debate.marks)) : null);
  const where = [`Question ${id}`, group ? `story ${group}` : "", source, `debate ${row[AT.id]} of ${form.stage.value}`,
    `seed ${debate.seed}`, debate.revision ? `judge's weights ${debate.revision}` : ""].filter(Boolean).join(" \u00b7 ");
  return [make("h3", "question", question),
    make("p", "meta", `${table.protocols[row[AT.protocol]]} \u00b7 ${verdict(row)}`),
    make("div", "seats", seats), ruling(debate, row), make("div", "columns", speeches, passage), make("p", "meta", where)];
}
function between(debate, turn, next = Infinity) {
  const p = debate.between[turn];
  const shown = p === undefined ? [] : [make("p", "after", `The judge after turn ${turn + 1}: ${percent(p)} for A`)];
  for (const [at, judge, text, origin] of debate.asked || []) {
    if (at < turn || at >= next) continue;
    shown.push(make("article", "speech asked", make("p", "side", `${judge} asks \u00b7 after turn ${at + 1}`),
      make("div", "text", text || "(nothing)"), origin ? make("p", "meta", origin) : null));
  }
  return shown;
}
function speechPiece(text, look, numbers, note) {
  if (!look) return [text];
  if (look === "scratchpad") return [make("span", "scratchpad", text)];
  const mark = make("mark", look, text);
  mark.title = visible(note);
  return [mark, ...numbers.map(number => {
    const label = make("sup", "", number);
    if (look === "invalid") return label;
    const jump = make("button", "jump", label);
    jump.type = "button";
    jump.title = "Show in the story";
    jump.addEventListener("click", () => {
      const target = body.querySelector(`.passage [data-quote="${number}"]`);
      target?.scrollIntoView({block: "center"});
      body.querySelector(".passage .now")?.classList.remove("now");
      target?.classList.add("now");
    });
    return jump;
  })];
}
function storyPieces(story, marks) {
  const pieces = [];
  let at = 0;
  for (const [start, end, look, numbers] of marks) {
    pieces.push(story.slice(at, start), make("mark", look, story.slice(start, end)));
    for (const number of numbers) {
      const label = make("sup", "", number);
      label.dataset.quote = number;
      pieces.push(label);
    }
    at = end;
  }
  return [...pieces, story.slice(at)];
}
function ruling(debate, row) {
  if (debate.failure) {
    const {seat, turn, kind, message} = debate.failure;
    const where = turn === null ? seat : `${seat}, turn ${turn + 1}`;
    return make("p", "verdict", make("b", "", `Failed at seat ${where}: `), `${kind}: ${message}`);
  }
  if (row[AT.p] === null) return make("p", "verdict", "No verdict.");
  const box = make("div", "verdict", make("p", "", make("b", "", `Verdict of ${debate.judge}: `),
    `${percent(row[AT.p])} for A, ${percent(1 - row[AT.p])} for B.`,
    debate.members.length ? ` Members: ${debate.members.map(([judge, p]) => `${judge} ${percent(p)} for A`).join("; ")}.` : ""));
  if (debate.asks.length) {
    const lines = debate.asks.map(([how, p, one, two, turn, text]) => make("tr", "",
      make("th", "", turn === null ? how : `after turn ${turn}, ${how}`), make("td", "num", percent(p)),
      make("td", "num", one.toFixed(2)), make("td", "num", two.toFixed(2)), make("td", "wrap", text ?? "")));
    const head = ["how the judge was asked", "for A", "log P, A", "log P, B", ""].map((title, place) =>
      make("th", place && place < 4 ? "num" : "", title));
    box.append(make("details", "", make("summary", "", "Both orders and log-probabilities"),
      make("div", "scroll", make("table", "", make("thead", "", make("tr", "", head)), make("tbody", "", lines)))));
  }
  return box;
}

// Events
form.addEventListener("submit", event => event.preventDefault());
form.addEventListener("reset", () => setTimeout(() => { sure = ""; if (table) { filter(); remember(); } }));
form.addEventListener("input", async event => {
  if (event.target.name === "stage") await open(); else if (table) filter();
  remember();
});
function turnTo(next) {
  page = next;
  draw();
  list.querySelector("a")?.focus();
}
room.querySelector(".earlier").addEventListener("click", () => turnTo(page - 1));
room.querySelector(".later").addEventListener("click", () => turnTo(page + 1));
reader.querySelector(".previous").addEventListener("click", () => show(shown - 1));
reader.querySelector(".next").addEventListener("click", () => show(shown + 1));
reader.querySelector(".close").addEventListener("click", () => reader.close());
reader.querySelector(".link").addEventListener("click", event => {
  event.preventDefault();
  navigator.clipboard?.writeText(location.href).then(() => { event.target.textContent = "Copied"; }, () => {});
  setTimeout(() => { event.target.textContent = "Link"; }, 1500);
});
reader.addEventListener("close", () => {
  if (location.hash.startsWith("#debates?") && shown !== null) remember();
  const row = rows[shown];
  shown = null;
  if (!row) return;
  const place = Math.floor(rows.indexOf(row) / PAGE);
  if (place !== page) { page = place; draw(); }
  list.querySelectorAll("a")[rows.indexOf(row) % PAGE]?.focus();
});
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  const inList = list.contains(document.activeElement);
  const step = {j: 1, k: -1, ...(inList || reader.open ? {ArrowDown: 1, ArrowUp: -1} : {}),
    ...(reader.open ? {ArrowRight: 1, ArrowLeft: -1} : {})}[event.key];
  if (reader.open) {
    // The arrows up and down scroll the debate; only letters and sideways arrows leave it.
    if (step && !event.key.match(/Down|Up/) && rows[shown + step]) { event.preventDefault(); show(shown + step); }
  } else if (event.key === "/") {
    event.preventDefault();
    form.q.focus();
    form.q.scrollIntoView({block: "center"});
  } else if (step && table) {
    const links = [...list.querySelectorAll("a")], now = links.indexOf(document.activeElement);
    const next = now + step;
    event.preventDefault();
    if (next >= links.length && (page + 1) * PAGE < rows.length) turnTo(page + 1);
    else links[Math.max(0, Math.min(links.length - 1, next))]?.focus();
  }
});
const folded = [];
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details:not([open])")) { part.open = true; folded.push(part); }
});
addEventListener("afterprint", () => { for (const part of folded.splice(0)) part.open = false; });
addEventListener("hashchange", follow);
if (location.hash.startsWith("#debates?")) follow();
// The table is loaded when it is looked at, so that the results are there at once.
new IntersectionObserver((seen, observer) => {
  if (!seen.some(one => one.isIntersecting)) return;
  observer.disconnect();
  if (!table) open();
}, {rootMargin: "400px"}).observe(room);
})();
