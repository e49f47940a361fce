"""Explorers of lesson 10: screens on their way to the network, films with probabilities, and where a policy looks."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from trpo_lessons.envs.atari.settings import GAMES
from trpo_lessons.teaching.explorers import Choice, Explorer, Slider, Stops
from trpo_lessons.teaching.lesson_10 import films, looking
from trpo_lessons.teaching.lesson_10.recorded_games import Recorded, loaded, recorded, untrained
from trpo_lessons.teaching.lesson_10.screens import FIRST, HEIGHT, STEPS, WIDTH, played
from trpo_lessons.teaching.lesson_10.shared import Bytes, Floats
from trpo_lessons.teaching.pictures import BLUE, VERMILION
from trpo_lessons.viewing.game_drawing import JOYSTICK
from trpo_lessons.viewing.style import COLOR_MAP

# ---- the stages ------------------------------------------------------------------------------------------------------

COLOR, GREY_LEVELS, LARGER, SMALL, STACKED, NORMALISED = range(1, 7)
STAGES = {
    COLOR: "what the emulator draws",
    GREY_LEVELS: "grey",
    LARGER: "the larger of the last two screens",
    SMALL: "made small",
    STACKED: "a stack of four",
    NORMALISED: "normalized",
}
NOTICEABLE = 20  # of 255
TITLE_LETTERS = 22  # in a line above a picture


@dataclass(frozen=True)
class Stage:
    """What goes into a stage and what comes out, [H, W, 3] or [H, W]; `words` says what is lost or gained."""

    number: int
    game: str
    before: Bytes | Floats
    after: Bytes | Floats
    words: str


def compute_stage(game: str, stage: int, step: int) -> Stage:
    """One stage of one step of random play."""
    play = played(game)
    pair, grey = play.pairs[step], play.greys[step]
    larger, small = grey.max(0), play.frames[step]
    colors = len(np.unique(pair[1].reshape(-1, 3), axis=0))
    stack, apart = play.stack(step), np.abs(play.stack(step)[0].astype(int) - small)
    if stage == COLOR:
        return Stage(stage, game, pair[0], pair[1], f"100800 bytes, 60 times a second; {colors} colors on this screen")
    if stage == GREY_LEVELS:
        levels = len(np.unique(grey[1]))
        return Stage(stage, game, pair[1], grey[1], f"33600 bytes are left; {colors} colors have become {levels} greys")
    if stage == LARGER:
        only = int((grey[0] > grey[1]).sum()), int((grey[1] > grey[0]).sum())
        words = f"{only[0]} pixels are brighter in the screen before the last, {only[1]} in the last one"
        return Stage(stage, game, grey[1], larger, words)
    if stage == SMALL:
        off = int((np.abs(enlarged(small).astype(int) - larger) > NOTICEABLE).sum())
        words = f"2080 bytes are left; {off} of 33600 pixels differ from their block's mean by more than {NOTICEABLE}"
        return Stage(stage, game, larger, small, words)
    if stage == STACKED:
        words = f"8320 bytes, from 16 frames; {(apart > 0).sum()} of 2080 pixels differ between the oldest and newest"
        return Stage(stage, game, small, in_a_square(stack), words)
    off = int((np.abs(stack - play.frames.mean(0)) > NOTICEABLE).sum())
    words = f"the mean frame is gone; {off} of 8320 pixels differ from it by more than {NOTICEABLE}"
    return Stage(stage, game, in_a_square(stack), in_a_square(play.normalised(step)), words)


def enlarged(small: Bytes) -> Bytes:
    """A small frame on the large screen's grid: every pixel of that where most of it lies, [210, 160]."""
    rows, columns = (np.arange(length) * shorter // length for length, shorter in ((210, HEIGHT), (160, WIDTH)))
    return small[rows][:, columns]


def in_a_square(stack: Bytes | Floats) -> Bytes | Floats:
    """Four frames as one picture: the older two above the newer two, the newest at the lower right."""
    return np.block([[stack[0], stack[1]], [stack[2], stack[3]]])


def facts_of_stage(numbers: Stage) -> str:
    """Which stage, and what it costs."""
    return f"stage {numbers.number}, {STAGES[numbers.number]}\n{numbers.words}"


def show(axes: Axes, picture: Bytes | Floats, title: str) -> None:
    """A screen, a small frame or a normalised one."""
    if picture.dtype == np.uint8:
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255, aspect="auto", interpolation="nearest")
    else:
        axes.imshow(picture, cmap="PuOr", vmin=-10, vmax=10, aspect="auto", interpolation="nearest")
    axes.set(xticks=(), yticks=())
    axes.set_title(textwrap.fill(title, TITLE_LETTERS), fontsize=11)
    axes.set_box_aspect(210 / 160)
    axes.grid(visible=False)


def draw_stage(numbers: Stage, figure: FigureBase) -> None:
    """What goes in, and what comes out."""
    left, right = figure.subplots(1, 2)
    shown_before = "the screen before it" if numbers.number == COLOR else STAGES[numbers.number - 1]
    show(left, numbers.before, "the last screen" if numbers.number == LARGER else shown_before)
    show(right, numbers.after, STAGES[numbers.number])


def alt_of_stage(numbers: Stage) -> str:
    """What the picture shows."""
    return f"Two pictures of {numbers.game} before and after stage {numbers.number}, {STAGES[numbers.number]}."


def stages_explorer() -> Explorer[Stage]:
    """From the emulator's screen to what the network sees."""
    return Explorer(
        "What is left of a screen when the network sees it?",
        compute=compute_stage,
        facts=facts_of_stage,
        draw=draw_stage,
        alt=alt_of_stage,
        controls=[
            Choice("game", "game", list(GAMES), "space_invaders"),
            Slider("stage", "stage", 1, len(STAGES), 1, 1),
            Slider("step", "step of the game", FIRST, STEPS - 1, 1, 80),
        ],
        size=(7.0, 4.3),
        panel_height=3.7,
    )


# ---- films -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FilmMoment:
    """One moment of a recorded film."""

    name: str
    moment: films.Moment


def filmed() -> dict[str, Recorded]:
    """The recorded runs of a joystick that have a film, by name."""
    return {run.name: run for run in recorded() if run.film.exists()}


def compute_film(run: str, moment: int) -> FilmMoment:
    """A moment of the film of that run."""
    return FilmMoment(run, films.moments(filmed()[run].film)[moment])


def likeliest(probabilities: Sequence[Floats]) -> tuple[str, float]:
    """The most likely of the 18 actions, and how likely it is: independent choices multiply."""
    places = [int(each.argmax()) for each in probabilities]
    names = [names[place] for names, place in zip(JOYSTICK, places, strict=True)]
    words = ", ".join(name for name in names if name not in ("none", "no fire")) or "nothing"
    return words, float(np.prod([each[place] for each, place in zip(probabilities, places, strict=True)]))


def facts_of_film(numbers: FilmMoment) -> str:
    """The probabilities, and the most likely of the 18 actions."""
    groups = [
        ", ".join(f"{name} {p:.2f}" for name, p in zip(names, each, strict=True))
        for names, each in zip(JOYSTICK, numbers.moment.probabilities, strict=True)
    ]
    words, p = likeliest(numbers.moment.probabilities)
    return f"{numbers.moment.seconds:.1f} s: {'; '.join(groups)}\nlikeliest of the 18 actions: {words}, {p:.2f}"


def draw_film(numbers: FilmMoment, figure: FigureBase) -> None:
    """The screen, and a bar for each of the joystick's choices."""
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.2))
    show(left, numbers.moment.screen, f"{numbers.name}, {numbers.moment.seconds:.1f} s")
    place, ticks, labels = 0.0, [], []
    for names, each in zip(JOYSTICK, numbers.moment.probabilities, strict=True):
        for name, p in zip(names, each, strict=True):
            right.barh(place, p, color=VERMILION if p == each.max() else BLUE, height=0.7)
            ticks.append(place)
            labels.append(name)
            place += 1
        place += 0.6
    right.set_yticks(ticks, labels)
    right.invert_yaxis()
    right.set(xlim=(0, 1), xlabel="probability")
    right.grid(visible=False, axis="y")


def alt_of_film(numbers: FilmMoment) -> str:
    """What the picture shows."""
    words, p = likeliest(numbers.moment.probabilities)
    return (
        f"The screen of {numbers.name} after {numbers.moment.seconds:.1f} seconds, and beside it bars for left, none "
        f"and right, up, none and down, and the button. The likeliest action is {words}, {p:.2f}."
    )


def film_explorer() -> Explorer[FilmMoment]:
    """Recorded films, frame by frame."""
    names = list(filmed())
    return Explorer(
        "What would it do now, and how sure is it?",
        compute=compute_film,
        facts=facts_of_film,
        draw=draw_film,
        alt=alt_of_film,
        controls=[
            Choice("run", "recorded run", names, "breakout" if "breakout" in names else names[0]),
            Slider("moment", "moment of the film", 0, films.MOMENTS - 1, 1, 10),
        ],
        size=(7.4, 4.0),
        panel_height=3.6,
    )


# ---- where a policy looks --------------------------------------------------------------------------------------------

UNTRAINED, SHUFFLED = "untrained network", "shuffled frame"


@dataclass(frozen=True)
class Look:
    """KL when a patch is covered, for the trained policy and for a control; and how much there was to cover.

    found, control, content  [rows, columns]; content is the mean square of what is covered, in normalised pixels
    """

    name: str
    versus: str
    frame: Bytes
    found: Floats
    control: Floats
    content: Floats


def compute_look(run: str, state: int, patch: int, versus: str) -> Look:
    """Cover patches of one of the states in which training stopped."""
    entry = {each.name: each for each in recorded()}[run]
    trained = loaded(entry)
    obs = looking.seen(trained, entry.states[state : state + 1])[0]
    answer = looking.answers(trained)
    if versus == SHUFFLED:
        control = looking.occlusion(answer, looking.shuffled(obs), patch)
    else:
        theta = looking.decided(untrained(trained), trained)
        control = looking.occlusion(looking.answers(trained, theta), obs, patch)
    content = looking.in_patches(obs, patch)
    return Look(run, versus, entry.states[state, -1], looking.occlusion(answer, obs, patch), control, content)


def correlation(one: Floats, other: Floats) -> float:
    """Of two maps, patch by patch."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def facts_of_look(numbers: Look) -> str:
    """How strong either map is, how few patches make it up, and how much of it is what there was to cover."""
    lines = []
    for name, each in (("trained", numbers.found), (numbers.versus, numbers.control)):
        lines.append(
            f"{name}: at most {each.max():.2g} nats; half of the sum lies in {looking.half_of(each)} of {each.size} "
            f"patches"
        )
    like = f"{correlation(numbers.control, numbers.content):.2f}" if numbers.versus == UNTRAINED else ""
    told = f", the control's {like}" if like else ""
    return "\n".join(
        [*lines, f"correlation with what there was to cover: {correlation(numbers.found, numbers.content):.2f}{told}"]
    )


def draw_look(numbers: Look, figure: FigureBase) -> None:
    """The newest frame, the map, and the control's map, each on its own scale."""
    frame, found, control = figure.subplots(1, 3)
    show(frame, numbers.frame, "newest frame")
    for axes, each, name in ((found, numbers.found, "trained"), (control, numbers.control, numbers.versus)):
        axes.imshow(each, cmap=COLOR_MAP, vmin=0, aspect="auto", interpolation="nearest")
        axes.set(xticks=(), yticks=())
        axes.set_title(f"{name},\nup to {each.max():.2g} nats", fontsize=11)
        axes.set_box_aspect(210 / 160)
        axes.grid(visible=False)


def patches(count: int) -> str:
    """Such as "1 patch", "3 patches"."""
    return f"{count} patch" if count == 1 else f"{count} patches"


def alt_of_look(numbers: Look) -> str:
    """What the picture shows."""
    counts = [looking.half_of(each) for each in (numbers.found, numbers.control)]
    return (
        f"A frame of {numbers.name} and two maps of how far the policy moves when a patch is covered. Half of the "
        f"trained policy's lies in {patches(counts[0])}, half of the control's ({numbers.versus}) in "
        f"{patches(counts[1])}."
    )


def look_explorer() -> Explorer[Look]:
    """Cover a patch, and see how far the policy moves."""
    runs = recorded()
    names = [run.name for run in runs]
    return Explorer(
        "Where must a patch be covered to change the policy's mind?",
        compute=compute_look,
        facts=facts_of_look,
        draw=draw_look,
        alt=alt_of_look,
        controls=[
            Choice("run", "recorded run", names, "breakout" if "breakout" in names else names[0]),
            Slider("state", "state", 0, min(len(run.states) for run in runs) - 1, 1, 0),
            Stops("patch", "side of the patch", [2, 4, 8], 4),
            Choice("versus", "control", [UNTRAINED, SHUFFLED], UNTRAINED),
        ],
        size=(8.4, 3.8),
        panel_height=3.0,
    )
