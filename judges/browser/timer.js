"use strict";
const timer = document.getElementById("timer");
const shownAt = Date.now() - 1000 * Number(timer.dataset.seconds);
setInterval(() => {
  const seconds = Math.floor((Date.now() - shownAt) / 1000);
  timer.textContent = Math.floor(seconds / 60) + ":" + String(seconds % 60).padStart(2, "0");
}, 1000);
// Some browsers keep a whole page for the back button, with a form that may have been answered since.
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
