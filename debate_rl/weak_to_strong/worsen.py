"""Games of known lower quality: a share of the speeches is exchanged for speeches about other stories.

"Explanation, Debate, Align" (arXiv 2409.07335) asks how the quality of explanations changes what a weak supervisor and
its student learn. Exchanged speeches read as well as before and say nothing about the item, so that the share alone
tells how much help is left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from debate_rl.errors import UserError
from debate_rl.game.transcript import Speech, Transcript
from debate_rl.judges.errors import uniform


def worsen(games: Sequence[Transcript], share: float, seed: int = 0) -> list[Transcript]:
    """Exchange a share of the speeches.

    Args:
        games: finished games, one an item.
        share: of the speeches, 0 to 1; those exchanged at one share are so at every higher one.
        seed: seed of the draws.

    Returns:
        The games in their order; an exchanged speech has the text of one of the same side and turn in a game about
        another story.

    Raises:
        UserError: all games are about one story.
    """
    donors: dict[tuple[str, int], list[tuple[str, Speech]]] = defaultdict(list)
    for game in games:
        for speech in game.speeches:
            donors[speech.side, speech.turn].append((game.question.cluster, speech))

    def exchanged(game: Transcript, speech: Speech) -> Speech:
        name = f"{game.question.id} {speech.side} {speech.turn}"
        if uniform(name, seed) >= share:
            return speech
        cluster = game.question.cluster
        others = [donor for story, donor in donors[speech.side, speech.turn] if story != cluster]
        if not others:
            raise UserError(f"worsened: no other story has a speech of side {speech.side}; give items of more stories")
        return others[int(uniform(f"donor {name}", seed) * len(others))]

    return [
        game.model_copy(update={"speeches": tuple(exchanged(game, speech) for speech in game.speeches)})
        for game in games
    ]
