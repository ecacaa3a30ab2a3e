"""A wave whose ends move and are free: the same bits on other ranks, and after a restart on others still."""

from tests.launch import ROOT, launch

SHORT = ["grid.cells=[41]", "time.step=5e-9", "time.end=1.5e-7", "micro.cutoff=2.5", "checkpoint.every=10"]
ENDS = ["macro.boundary.x_low={kind='moving', velocity='20 * sin(4e7 * t)'}", "checkpoint.keep=9"]


def run(nranks, first, *words):
    done = launch(nranks, ["hpcmsm", first, *words, "--quiet"])
    assert done.returncode == 0, done.stderr


def test_waves_restart_on_any_ranks(tmp_path):
    settings = [word for override in (*SHORT, *ENDS) for word in ("--set", override)]
    for nranks in (1, 3):
        run(nranks, "run", ROOT / "cases" / "crystal_wave.toml", "-o", tmp_path / str(nranks), *settings)
    paths = sorted((tmp_path / "3" / "checkpoints").glob("step_*.h5"))
    last, alone = paths[-1], tmp_path / "1" / "checkpoints" / paths[-1].name
    assert [path.name for path in paths] == [f"step_{step:08}.h5" for step in (0, 10, 20, 30)]
    assert launch(0, ["hpcmsm", "compare", alone, last]).returncode == 0
    for path in paths[2:]:
        path.unlink()
    run(2, "resume", tmp_path / "3")
    compared = launch(0, ["hpcmsm", "compare", alone, last])
    assert compared.returncode == 0, compared.stdout
