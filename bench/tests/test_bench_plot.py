"""The plot is well-formed and shows every point within its frame."""

from xml.etree import ElementTree as ET

from plot import log_x_plot

SVG = "{http://www.w3.org/2000/svg}"


def test_the_plot_is_well_formed_and_has_every_point():
    text = log_x_plot("Rate & growth", {"a <b>": [(1, 9000), (1000, 8000)], "c": [(1, 10)]}, x_label="x", y_label="y")

    root = ET.fromstring(text)

    assert len(root.findall(f"{SVG}polyline")) == 4  # two lines, each once more in the legend
    points = [(float(one.get("cx")), float(one.get("cy"))) for one in root.findall(f"{SVG}circle")]
    assert len(points) == 3
    assert all(0 < x < 760 and 0 < y < 420 for x, y in points)
    assert {"Rate & growth", "a <b>", "9,000", "1,000"} & {one.text for one in root.findall(f"{SVG}text")} >= {
        "Rate & growth",
        "a <b>",
        "1,000",
    }


def test_one_practice_alone_can_be_plotted():
    assert ET.fromstring(log_x_plot("one", {"a": [(1, 5)]}, x_label="x", y_label="y")) is not None
