"""benchmarks/scaling.py with real runs of a small case."""

import json

from launch import ROOT, launch


def test_study_of_a_small_wall(tmp_path):
    out = tmp_path / "out"
    small = ["grid.cells=[12, 8]", "time.end=6 s", "micro.resolution=8", "surrogate.enabled=false"]
    words = [word for text in small for word in ("--set", text)]
    case = ROOT / "cases" / "composite_wall.toml"
    program = ["python", ROOT / "benchmarks" / "scaling.py", "--case", case, "--ranks", "1,3"]
    done = launch(0, [*program, "--repeats", "1", "--output", out, *words], timeout=200)
    assert done.returncode == 0, done.stderr
    result = json.loads((out / "scaling.json").read_text())
    assert [row["cells"] for row in result["weak"]] == [[12, 8], [36, 8]]
    assert [row["steps"] for row in result["strong"]] == [4, 4]
    assert "micro" in result["strong"][0]["phases"]
    # Implicit steps on 1 and 3 ranks differ by the tolerance of the linear solver, but are compared.
    assert 0.0 < result["largest_difference"]["temperature"] < 1e-6
    assert "| 3 | 36 x 8 |" in (out / "scaling.md").read_text()


def test_wrong_case_is_told_without_a_report(tmp_path):
    case = tmp_path / "wrong.toml"
    case.write_text("[grid]\ncells = [4, 4]\nsize = [1, -1]\n")
    program = ["python", ROOT / "benchmarks" / "scaling.py", "--case", case, "--output", tmp_path / "out"]
    done = launch(0, program)
    assert done.returncode != 0
    assert "grid.size" in done.stderr
    assert not (tmp_path / "out" / "scaling.json").exists()
