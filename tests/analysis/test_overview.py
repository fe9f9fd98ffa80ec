"""What `codistill list methods` says, against what is known of the methods."""

from pathlib import Path

import pytest
from toys import tiny

from codistill import Peers
from codistill.analysis.cost.overview import additions, describe, overview
from codistill.command.main import main
from codistill.names import METHODS

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.long  # facts takes five seconds


@pytest.fixture(scope="module")
def facts():
    return {name: overview(name) for name in METHODS}


def test_every_method_but_independent_names_its_paper_and_year(facts):
    for name, o in facts.items():
        assert o.idea, name
        if name == "independent":
            assert (o.paper, o.year) == ("no paper", None)
        else:
            assert o.paper.endswith(str(o.year)), name
            assert 2014 <= o.year <= 2022
    assert facts["ffl"].paper == "Kim et al., ICPR 2020"
    assert facts["pcl"].paper == "Wu and Gong, AAAI 2021"
    assert facts["kd"].paper == "Hinton et al., NeurIPS workshop 2014"


def test_who_shares_a_trunk(facts):
    assert {n for n, o in facts.items() if o.trunk == "must share"} == {"one"}
    assert {n for n, o in facts.items() if o.trunk == "must not share"} == {"codistillation"}


def test_how_many_peers_each_takes(facts):
    fewest = {name: o.fewest_peers for name, o in facts.items()}
    three, one = {"okddip", "okdmde", "ffsd"}, {"independent", "kd", "shake"}
    for name, K in fewest.items():
        assert (3 if name in three else 1 if name in one else 2) == K, name


def test_views_and_forwards(facts):
    assert {n for n, o in facts.items() if o.views == 3} == {"kdcl", "pcl"}
    assert {n for n, o in facts.items() if o.forwards == 2} == {"afd"}


def test_added_parameters_are_those_that_can_be_counted_by_hand(facts):
    d, K, C = 64, 3, 100
    fusion = K * d * 9 + 2 * K * d + K * d * d + 2 * d + d * C + C
    expected = {
        "independent": 0,
        "one": 32 * K + 2 * K,
        "okddip": 2 * d * d // 8,
        "ffl": fusion,
        "pcl": K * d * C + C,
        "okdmde": 2 * d * d // 8 + 2 * d * d + 2 * d + 9 * d * d + 2 * d,
        "afd": K * (9 * d * 2 * d + 2 * 2 * d + 2 * d + 1),
        "mfef": fusion
        + K * (16 * (9 + 25 + 49 + 81) + 2 * d)
        + K * (d * 4 + 4 + 4 * d + d)
        + K * 2 * 49,
        # Of the teacher's maps 16, 32, 64: down and side to 32 and to 64, and the last; with norms.
        "shake": 9 * 16 * 32
        + 32 * 32
        + 9 * 32 * 64
        + 64 * 64
        + 9 * 64 * 64
        + 2 * (2 * 32 + 3 * 64),
        # The fusion of two students, and the leader's map made as wide as theirs.
        "ffsd": 2 * d * 9
        + 2 * 2 * d
        + 2 * d * d
        + 2 * d
        + d * C
        + C
        + 9 * d
        + 2 * d
        + 2 * d * d
        + 2 * 2 * d,
        "switokd": 0,
        "mcl": K * (64 * 128 + 128 + 128 * 128 + 128),
    }
    for name, count in expected.items():
        assert facts[name].parameters == count, name
    alone = 278_324  # ResNet-20 on 100 classes
    assert facts["kd"].copies == facts["shake"].copies == alone
    assert facts["codistillation"].copies == 3 * alone


def test_the_cost_counts_what_runs(facts):
    cost = {name: o.cost for name, o in facts.items()}
    assert cost["independent"] == cost["dml"] == cost["cl_ilr"] == cost["switokd"] == 1
    assert 1.32 < cost["codistillation"] < 1.35  # a forward pass is a third of a step
    assert 2.0 < cost["afd"] < 2.2  # forward and backward twice
    assert 1.0 < cost["ffl"] < cost["mfef"] < 1.05
    # The trunk, about two thirds of a network, runs three times instead of once.
    assert 1.7 < cost["kdcl"] < 1.9
    assert cost["kdcl"] + 0.5 < cost["pcl"] < cost["kdcl"] + 0.7


def test_the_lines_say_it(facts):
    text = "\n".join(describe(facts["pcl"]))
    assert "2 or more peers, which may share a trunk; 3 views, 1 forward per step" in text
    assert "adds 19,300 trained and 702,716 not trained parameters" in text
    assert "keeps the best mean_teacher or peer" in text
    assert "ramp_up=80" in text
    assert "keeps the leader" in "\n".join(describe(facts["okddip"]))


def test_the_command_lists_every_method(facts, monkeypatch, capsys):
    monkeypatch.setattr("codistill.analysis.cost.overview.overview", facts.get)
    assert main(["list", "methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    first = [line.partition(" ")[0] for line in lines]
    assert [word for word in first if word in METHODS] == list(METHODS)
    assert max(map(len, lines)) < 100


def test_the_table_in_the_docs_is_true(facts):
    page = (ROOT / "docs" / "methods" / "README.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    rows = {row[0].strip("`"): row for row in rows if row and row[0].startswith("`")}
    assert list(rows) == list(METHODS)
    for name, (_, link, paper, peers, trunk, views, adds, cost, extra, kept) in rows.items():
        o = facts[name]
        assert f"({name}.md)" in link
        assert paper.replace("-", "no paper", 1 if name == "independent" else 0) == o.paper, name
        assert peers == f"{o.fewest_peers}+"
        assert trunk == o.trunk.removesuffix(" share")
        assert views == str(o.views)
        assert adds == f"{o.parameters:,}" + (f" (+ {o.copies:,})" if o.copies else "")
        assert cost == f"{o.cost:.2f}"
        found = [
            f"{o.keeps[0][:-1]}s" if n in o.keeps[:1] and len(o.keeps) > 1 else n
            for n in o.classifiers
            if n not in o.keeps[1:]
        ]
        assert extra == (", ".join(found) or "-")
        assert kept == " or ".join(dict.fromkeys(n.rstrip("0123456789") for n in o.keeps))


def test_what_methods_add_to_peers_that_differ_can_be_counted_by_hand():
    """Peer 0: 16 channels at 1/4. Peer 1: 24 at 1/2. Peer 2: 16 at 1/4. Two classes."""
    peers = Peers(
        [
            tiny(2, width=4),
            tiny(2, width=6, strides=(1, 2, 1)),
            tiny(2, width=4),
        ]
    )
    before = peers.state_dict()
    counts = dict(additions(peers))
    # FFL brings peer 1's map to 1/4: a 2x2 convolution of 24 channels and batch normalisation.
    size = 24 * 24 * 2 * 2 + 2 * 24
    assert counts["ffl"]["adapters"] == counts["mfef"]["adapters"] == size
    assert counts["ffsd"]["adapters"] == size
    # OKDMDE's auxiliary peers 0 and 1, and then a 1x1 convolution from 24 to 16 channels.
    width = 24 * 16 + 2 * 16
    assert counts["okdmde"]["adapters"] == size + width
    assert counts["okddip"]["adapters"] == width
    # AFD's ring: (0, 2), where nothing differs, (1, 0) and (2, 1).
    assert counts["afd"]["adapters"] == 2 * (size + width)
    assert counts["dml"] == counts["independent"]
    assert counts["dml"]["method"] == counts["dml"]["adapters"] == counts["dml"]["frozen"] == 0
    assert counts["codistillation"]["frozen"] == counts["dml"]["peers"]
    assert "needs a teacher" in counts["kd"]
    assert "trunk" in counts["one"]
    assert peers.state_dict().keys() == before.keys()


def test_no_adapters_where_maps_agree():
    peers = Peers([tiny() for _ in range(3)], 2)
    for _, counts in additions(peers):
        assert isinstance(counts, str) or counts["adapters"] == 0
