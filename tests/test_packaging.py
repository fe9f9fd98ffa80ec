"""Wheel and source distribution, and the wheel in an environment of its own."""

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FOUR = {"1904.09058", "2002.01775", "2010.00795", "2206.08224"}


def test_the_four_papers_can_be_cited() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    ids = {p["identifiers"][0]["value"].removeprefix("arXiv:") for p in citation["references"]}
    assert ids == FOUR
    for name in ("ffl", "afd", "okdmde", "mfef"):
        page = (ROOT / "docs" / "methods" / f"{name}.md").read_text()
        (paper,) = [p for p in citation["references"] if p["identifiers"][0]["value"] in page]
        assert f"{paper['conference']['name']} {paper['year']}" in page


@pytest.mark.slow
def test_the_wheel_runs_outside_the_checkout(tmp_path: Path) -> None:
    """Built from the source distribution; torch and the rest are those of the tests."""
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path)]
    done = subprocess.run([*build, str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,) = tmp_path.glob("*.tar.gz")
    (wheel,) = tmp_path.glob("*.whl")
    with tarfile.open(sdist) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {"CITATION.cff", "LICENSE", "recipes/photos.yaml", "tests/toys.py"} <= names
    assert not any(name.startswith("results/") for name in names)
    assert sdist.stat().st_size < 3_000_000
    with zipfile.ZipFile(wheel) as archive:
        assert {"codistill/py.typed", "codistill/recipes/photos.yaml"} <= set(archive.namelist())

    venv.create(tmp_path / "env", with_pip=True)
    python = str(tmp_path / "env" / "bin" / "python")
    outside = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, env=outside)
    where = "import json, sysconfig; print(json.dumps(sysconfig.get_paths()['purelib']))"
    own, ours = (
        Path(json.loads(subprocess.check_output([p, "-c", where], env=outside)))
        for p in (python, sys.executable)
    )
    # The others' packages, behind its own: the .pth file of an editable install is not read there.
    (own / "others.pth").write_text(f"{ours}\n")
    command = [str(tmp_path / "env" / "bin" / "codistill"), "demo", "--seeds", "1", "--epochs", "1"]
    done = subprocess.run(command, cwd=tmp_path, env=outside, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs" / "demo" / "report.html").exists()
    code = "import codistill; print(codistill.__file__)"
    found = subprocess.check_output([python, "-c", code], cwd=tmp_path, env=outside, text=True)
    assert Path(found.strip()).is_relative_to(own)
