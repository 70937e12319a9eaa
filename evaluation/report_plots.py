"""Pictures of a report, as SVG that stands in its page: text in the page's font, ink in the page's colour."""

import io
import itertools
import re
from xml.etree import ElementTree

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .report_data import Bin, Confusions


WIDTH = 3.25  # inches: a phone shows a picture at its full size
PANEL_HEIGHT = 2.0
INK = "#010203"  # stands for the page's text colour, which is another one in the dark
BLUE = "#3b82c4"
# One a system, ours first; marks differ too, for eyes and paper that know no colour.
SERIES = list(
    zip((BLUE, "#d9822b", "#3f9c5f", "#c2504d", "#8a6fc0", "#8b6f5c"), ("o", "s", "^", "D", "v", "P"), strict=True)
)
STYLE = {
    "font.size": 8,
    "font.family": "sans-serif",
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "speechverse",  # the same page from the same answers
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.fontsize": "small",
    "legend.frameon": False,
    "text.parse_math": False,  # names of classes and systems are anyone's
    **{f"{what}.color": INK for what in ("text", "xtick", "ytick")},
    **{f"axes.{what}": INK for what in ("edgecolor", "labelcolor")},
}
LONGEST_NAME = 24  # characters of a class or system that a picture shows


@rc_context(STYLE)
def draw_confusions(confusions: Confusions, *, name: str, words: str) -> str:
    """A matrix of counts, truths down and answers across; the darker, the larger the share of its truth."""
    rows, columns = confusions.counts.shape
    names = [shorten(name) for name in (*confusions.truths, *confusions.answers)]
    margin = 0.35 + 0.065 * max(map(len, names))  # inches, for the names
    side = min(0.45, max(0.27, (WIDTH - margin) / columns))  # of a field: many are wider than a phone
    figure = _new_figure(max(2, columns * side + margin), rows * side + margin)
    axes = figure.add_subplot()
    for row, column in itertools.product(range(rows), range(columns)):
        count = confusions.counts[row, column]
        share = count / max(1, confusions.counts[row].sum())
        axes.fill(
            [column - 0.5, column + 0.5, column + 0.5, column - 0.5],
            [row - 0.5, row - 0.5, row + 0.5, row + 0.5],
            facecolor=BLUE,
            edgecolor="none",
            alpha=0.7 * share,  # or ink on it could not be read
        )
        if count:
            axes.text(column, row, str(count), ha="center", va="center", fontsize="small")
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), aspect="equal", xlabel="answer", ylabel="truth")
    axes.set_yticks(range(rows), names[:rows])
    axes.set_xticks(range(columns), names[rows:], rotation=90 if columns > 3 or margin > 1 else 0)
    axes.tick_params(length=0)
    return to_svg(figure, name, words)


@rc_context(STYLE)
def draw_bins(
    panels: list[tuple[str, list[Bin]]], systems: list[str], label: str, scale: float, *, name: str, words: str
) -> str:
    """Scores with their 95 % intervals, a panel for each fact that samples are binned by.

    Args:
        panels (`list[tuple[str, list[Bin]]]`): what the bins are of, such as `duration (s)`, and the bins.
        systems (`list[str]`): their names, as each bin orders them.
        label (`str`): of the score's axis.
        scale (`float`): what scores are multiplied by.
        name, words (`str`): see [`to_svg`].
    """
    legend = [index for index in range(len(systems)) if _drawn(panels, index)]
    figure = _new_figure(WIDTH, PANEL_HEIGHT * len(panels) + 0.18 * len(legend))
    for axes, (what, bins) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        for index, system in enumerate(systems):
            colour, marker = SERIES[index % len(SERIES)]
            shift = 0.5 * ((index + 0.5) / len(systems) - 0.5)  # side by side
            points = [(place + shift, one.intervals[index]) for place, one in enumerate(bins) if one.intervals[index]]
            if points:
                places = [place for place, _ in points]
                values = [scale * interval.value for _, interval in points]
                ends = [[scale * interval.low, scale * interval.high] for _, interval in points]
                axes.vlines(places, *zip(*ends, strict=True), color=colour, linewidth=1)
                label_of_system = shorten(system, 2 * LONGEST_NAME)
                axes.plot(places, values, marker, color=colour, markersize=4, label=label_of_system, clip_on=False)
        axes.margins(y=0.1)
        axes.set_xticks(range(len(bins)), [f"{one.name}\nn={one.samples}" for one in bins])
        axes.set(xlabel=what, ylabel=label, xlim=(-0.6, len(bins) - 0.4), ylim=(0, None))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.5)
    if len(systems) > 1:
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center")
    return to_svg(figure, name, words)


@rc_context(STYLE)
def draw_layer_mix(weights: list[float], *, name: str, words: str) -> str:
    """The weight of each encoder layer, first layer first."""
    figure = _new_figure(WIDTH, PANEL_HEIGHT)
    axes = figure.add_subplot()
    axes.bar(range(1, len(weights) + 1), weights, color=BLUE)
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.set(xlabel="encoder layer", ylabel="weight")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    return to_svg(figure, name, words)


def to_svg(figure: Figure, name: str, words: str) -> str:
    """A picture as an `<svg>` element of an HTML page.

    Args:
        figure (`Figure`): the picture.
        name (`str`): unique in the page; its ids begin with it.
        words (`str`): what it shows, for who cannot see it.
    """
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = ElementTree.fromstring(stream.getvalue())
    for element in list(svg):
        if element.tag.endswith("metadata") or element.find("{*}style") is not None:  # which would be the whole page's
            svg.remove(element)
    for element in svg.iter():
        element.tag = _local(element.tag)  # namespaces are an XML file's, not a page's
        attributes = {_local(key): value for key, value in element.attrib.items()}
        element.attrib.clear()
        for key, value in attributes.items():
            if key == "id":
                value = f"{name}-{value}"
            elif key == "href":
                value = f"#{name}-{value.removeprefix('#')}"
            elif key == "style":
                value = re.sub(r"font-family:[^;]*;? ?", "", value).replace(INK, "currentColor")
            element.set(key, value.replace("url(#", f"url(#{name}-"))
    svg.attrib |= {"role": "img", "aria-label": words}
    return ElementTree.tostring(svg, encoding="unicode", short_empty_elements=True)


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def shorten(name: str, longest: int = LONGEST_NAME) -> str:
    """A name on one line, cut where it is too long for a picture."""
    name = " ".join(name.split())
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _drawn(panels: list[tuple[str, list[Bin]]], index: int) -> bool:
    return any(one.intervals[index] for _, bins in panels for one in bins)


def _new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure
