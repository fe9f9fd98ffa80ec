"""The file of a comparison: what it makes, and what is refused in it."""

from pathlib import Path

import pytest
import yaml

from codistill.command.main import main
from codistill.comparing.comparison import Comparison, read_comparison
from codistill.errors import InputError
from codistill.settings.yaml_files import read_yaml

BASE = {
    "settings": {"data": "digits", "peers": 2, "epochs": 3},
    "networks": ["resnet8"],
    "seeds": [0, 1],
    "methods": {"dml": {}},
}


def read(folder: Path, **changes: object) -> Comparison:
    tree = {key: value for key, value in (BASE | changes).items() if value != "absent"}
    file = folder / "comparison.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    return read_comparison(file)


def refused(folder: Path, **changes: object) -> str:
    with pytest.raises(InputError) as error:
        read(folder, **changes)
    return str(error.value)


def test_the_networks_alone_are_always_among_them(tmp_path: Path) -> None:
    own, dml = read(tmp_path, settings={"peers": 2, "shared": 2}).rows
    assert (own.label, own.config.method, own.config.peers, own.config.shared) == (
        "independent",
        {"name": "independent"},
        2,
        0,
    )
    assert (dml.label, dml.baseline, dml.config.shared) == ("dml", "independent", 2)


def test_rows_differ_in_nothing_but_method_peers_and_shared(tmp_path: Path) -> None:
    methods = {
        "dml": {"temperature": 2.0},
        "ffl": {"shared": 2},
        "three": {"name": "dml", "peers": 3},
    }
    rows = {row.label: row for row in read(tmp_path, methods=methods).rows}
    assert list(rows) == ["independent", "independent x3", "dml", "ffl", "three"]
    assert rows["three"].baseline == "independent x3"
    assert rows["independent x3"].config.peers == 3
    assert rows["ffl"].baseline == "independent"
    dml = {"name": "dml", "temperature": 2.0, "standardise": False}
    assert rows["dml"].config.method == dml
    for row in rows.values():
        c = row.config
        assert (c.epochs, c.network, c.data, c.seed) == (3, "resnet8", rows["dml"].config.data, 0)


def test_settings_win_over_the_recipe_and_its_method_does_not_count(tmp_path: Path) -> None:
    comparison = read(
        tmp_path,
        recipe="ffl_resnet8_cifar100_short",
        settings={"epochs": 4, "data.root": "/somewhere"},
        networks="absent",
    )
    config = comparison.rows[1].config
    assert (config.epochs, config.lr, config.network, config.peers) == (4, 0.1, "resnet8", 3)
    assert (config.data.name, config.data.root, config.data.flip) == (
        "cifar100",
        "/somewhere",
        True,
    )
    assert config.method["name"] == "dml"


def test_every_method_with_every_network(tmp_path: Path) -> None:
    mixed = {"network": "resnet8, resnet14", "shared": 0}
    methods = {"dml": {}, "ffl": {"shared": 2}, "branches": {"name": "independent", "shared": 2}}
    rows = read(tmp_path, networks=["resnet8", mixed], methods=methods).rows
    assert [(row.label, row.baseline, row.config.shared) for row in rows] == [
        ("independent, resnet8", "independent, resnet8", 0),
        ("independent, resnet8,resnet14", "independent, resnet8,resnet14", 0),
        ("dml, resnet8", "independent, resnet8", 0),
        ("ffl, resnet8", "independent, resnet8", 2),
        ("branches, resnet8", "independent, resnet8", 2),
        ("dml, resnet8,resnet14", "independent, resnet8,resnet14", 0),
        ("ffl, resnet8,resnet14", "independent, resnet8,resnet14", 0),
    ]
    assert rows[-1].folder(7) == "ffl_resnet8+resnet14_seed7"


def test_the_networks_alone_share_nothing_whatever_their_network_says(tmp_path: Path) -> None:
    own, dml = read(tmp_path, networks=[{"network": "resnet8", "shared": 2, "peers": 3}]).rows
    assert (own.label, own.config.shared, own.config.peers) == ("independent", 0, 3)
    assert (dml.config.shared, dml.config.peers) == (2, 3)


def test_a_run_keeps_its_folder_when_a_network_is_added(tmp_path: Path) -> None:
    one = read(tmp_path).rows
    two = read(tmp_path, networks=["resnet8", "resnet14"]).rows
    assert {row.folder(0) for row in one} == {"independent_resnet8_seed0", "dml_resnet8_seed0"}
    assert {row.folder(0) for row in one} < {row.folder(0) for row in two}


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"method": {}}, "'method' is not known: did you mean 'methods'?"),
        (
            {"methods": {"dml": {"lr": 0.1}}},
            "dml: 'lr' is the same for all: it belongs to settings",
        ),
        ({"methods": {"dml": {"data.pad": 1}}}, "'data.pad' is the same for all"),
        ({"methods": {"dml": {"seed": 1}}}, "'seed' is the same for all"),
        ({"methods": {"dml": {"temprature": 1}}}, "did you mean 'method.temperature'?"),
        ({"methods": {"dlm": {}}}, "methods: dlm: method 'dlm' is not known: did you mean 'dml'?"),
        ({"methods": {"dml": {"temperature": "hot"}}}, "methods: dml: method.temperature"),
        ({"methods": {"dml": 3}}, "dml is 3: give options"),
        ({"methods": {"a\nb": {"name": "dml"}}}, "give a name of one line"),
        ({"methods": {"independent": {"shared": 2}}}, "'independent' is the label of the networks"),
        ({"methods": {"alone": {"name": "independent"}}}, "it is the same as 'independent'"),
        ({"methods": {"dml": {}, "again": {"name": "dml"}}}, "again: it is the same as 'dml'"),
        ({"methods": {"a b": {"name": "dml"}, "a_b": {"name": "kdcl"}}}, "are too alike"),
        ({"methods": "absent"}, "methods are missing"),
        ({"seeds": "absent"}, "seeds are None: give each once"),
        ({"seeds": [0, 0]}, "seeds are [0, 0]: give each once"),
        ({"seeds": [True]}, "give each once"),
        ({"seeds": 3}, "seeds are 3: give each once"),
        ({"networks": ["resnet8", "resnet8"]}, "resnet8 is given twice"),
        ({"networks": "resnet8"}, "give a list"),
        ({"networks": [{"network": "resnet8", "lr": 1}]}, "'lr' is the same for all"),
        ({"networks": ["resnet8,resnet14,resnet20"]}, "give --peers 3"),
        ({"settings": {"network": "resnet8"}}, "'network' has a place of its own: networks"),
        ({"settings": {"method": "ffl"}}, "'method' has a place of its own: methods"),
        ({"settings": {"epocks": 3}}, "did you mean 'epochs'?"),
        ({"settings": {"epochs": -1}}, "epochs is -1"),
        ({"settings": [3]}, "settings is [3]"),
        ({"recipe": "ffl_resnet"}, "there is no recipe file 'ffl_resnet'"),
        ({"published": {"dlm": {}}}, "'dlm' is no row: did you mean 'dml'?"),
        ({"published": {"dml": {"value": 1}}}, "give value, source, and how its recipe differs"),
        ({"slurm": 3}, "slurm is 3"),
        ({"sweep": [3]}, "sweep is [3]: give settings with values"),
        ({"sweep": {"lr": 3}}, "sweep: lr is 3: give two values or more"),
        ({"sweep": {"lr": [0.1]}}, "sweep: lr is [0.1]: give two values or more"),
        ({"sweep": {"lr": [0.1, 0.1]}}, "give two values or more, each once"),
        ({"sweep": {"lr": [0.1, -1]}}, "dml, lr=-1: lr is -1"),
        ({"sweep": {"lrr": [1, 2]}}, "sweep: 'lrr' is not known: did you mean 'lr'?"),
        ({"sweep": {"seed": [1, 2]}}, "'seed' cannot be swept: it has a place of its own: seeds"),
        ({"sweep": {"threads": [1, 2]}}, "'threads' cannot be swept: it changes no result"),
        ({"sweep": {"data.val_fraction": [0.1, 0.2]}}, "would be measured on other images"),
        ({"sweep": {"peers": [2, 3]}}, "'peers' cannot be swept: list methods with other peers"),
        ({"sweep": {"method.x": [1, 2]}}, "sweep: none of dml takes 'method.x', or all give it"),
        (
            {"sweep": {"method.temperature": [1, 2]}, "methods": {"dml": {"temperature": 3}}},
            "none of dml takes 'method.temperature', or all give it",
        ),
        ({"sweep": {"lr": [1, 2]}, "methods": {"dlm": {}}}, "dlm, lr=1: method 'dlm' is not known"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    changes: dict[str, object], answer: str, tmp_path: Path
) -> None:
    line = refused(tmp_path, **changes)
    assert answer in line
    assert line.startswith(str(tmp_path / "comparison.yaml"))
    assert "\n" not in line


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    line = refused(tmp_path, seeds=[], methods={}, networks=[], recipes=3)
    assert "4 problems: (1) 'recipes'" in line
    for section in ("(2) seeds", "(3) networks", "(4) methods"):
        assert section in line
    line = refused(tmp_path, methods={"dml": {"lr": 1}, "ffl": {"x": 1}, "kdcl": {}})
    assert "2 problems: (1) methods: dml" in line
    assert "(2) methods: ffl" in line


def test_a_sweep_makes_a_row_of_every_value_also_for_the_networks_alone(tmp_path: Path) -> None:
    sweep = {"lr": [0.1, 0.3], "method.temperature": [1, 3], "shared": [0, 2]}
    methods = {"dml": {}, "cold": {"name": "dml", "temperature": 0.5, "shared": 1}}
    rows = {r.label: r for r in read(tmp_path, sweep=sweep, methods=methods).rows}
    by_method: dict[str, list[str]] = {}
    for row in rows.values():
        by_method.setdefault(row.method, []).append(row.label)
    assert by_method["independent"] == ["independent, lr=0.1", "independent, lr=0.3"]
    assert len(by_method["dml"]) == 8
    assert by_method["cold"] == ["cold, lr=0.1", "cold, lr=0.3"]  # it gives the others itself
    c = rows["dml, lr=0.3, temperature=1, shared=2"].config
    assert (c.lr, c.method["temperature"], c.shared) == (0.3, 1.0, 2)
    assert (rows["independent, lr=0.3"].config.lr, rows["independent, lr=0.3"].config.shared) == (
        0.3,
        0,
    )
    assert rows["cold, lr=0.1"].config.method["temperature"] == 0.5
    assert {row.baseline for row in rows.values()} == {"independent"}
    places = [row.folder(0) for row in rows.values()]
    assert len({*places}) == len(places)
    assert "dml_lr_0.3_temperature_1_shared_2_resnet8_seed0" in places
    # Of the data, settings that leave the images as they are; the rest of them stays.
    data = {"name": "digits", "flip": True}
    rows = {
        r.label: r
        for r in read(
            tmp_path, settings={"data": data, "peers": 2}, sweep={"data.pad": [0, 2]}
        ).rows
    }
    assert [r.config.data.pad for r in rows.values()] == [0, 2, 0, 2]
    assert all(r.config.data.flip for r in rows.values())


@pytest.mark.parametrize("text", ["", "- dml", "methods: [", "seeds: [0]\nseeds: [1]\n"])
def test_what_is_no_comparison_is_named(text: str, tmp_path: Path) -> None:
    file = tmp_path / "comparison.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match="comparison.yaml"):
        read_comparison(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert main(["compare", str(tmp_path / "no.yaml")]) == 2
    with pytest.raises(InputError, match=r"there is no file .*no\.yaml$"):
        read_yaml(tmp_path / "no.yaml")
