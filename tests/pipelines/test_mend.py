"""What a killed dvc leaves is mended when nothing works here, one line each, and a second look finds nothing."""

import fcntl
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from llm_i2i.files import content_md5
from pipelines import mend, zenml_store

STAGES = "stages:\n  one:\n    cmd: cp in.txt out.txt\n    deps: [in.txt]\n    outs: [out.txt]\n"


def shell(*command: str, status: int = 0) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def dvc(*arguments: str, status: int = 0) -> str:
    return shell(sys.executable, "-m", "dvc", *arguments, status=status)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a real dvc has run one stage."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        shell("git", "init", "--quiet")
        dvc("init", "--quiet")
        Path("dvc.yaml").write_text(STAGES)
        Path("in.txt").write_text("text")
        dvc("repro")
    return root


@pytest.fixture
def project(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shell("cp", "-r", f"{finished}/.", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "was cut"),
        ('{"write": {"/x/out": {"pi', "was cut"),
        ('{"write": {"/x/out": {"pid": 1, "cmd": "dvc repro"}}}', "names processes that have ended"),
    ],
)
def test_a_damaged_or_stale_rwlock_goes(project, content, found):
    Path(".dvc/tmp/rwlock").write_text(content)
    assert len(mend.mend()) == 1
    Path(".dvc/tmp/rwlock").write_text(content)
    assert found in mend.mend()[0]
    assert mend.mend() == []


def test_dvc_goes_on_after_the_mending_of_all_at_once_and_computes_nothing_again(project):
    """With the lock file of no commit: the run cache alone brings the finished stage back."""
    whole = Path("dvc.lock").read_text()
    Path(".dvc/tmp/rwlock").write_text("")
    Path("dvc.lock").write_text("")
    Path("out.txt").unlink()
    left = Path(".dvc/cache/files/md5/.aBcDeFgHiJkLmNoPqRsT_-.tmp")
    left.write_text("half a file")
    assert "corrupted" in dvc("repro", status=255) or "validation failed" in dvc("repro", status=255)
    told = "\n".join(mend.mend())
    assert [line.split()[0] for line in told.splitlines()] == [".dvc/tmp/rwlock", "dvc.lock", "1"]
    assert not left.exists()
    said = dvc("repro")
    assert "is cached - skipping run" in said
    assert "Running stage" not in said
    assert Path("dvc.lock").read_text() == whole


def test_dvc_lock_cut_at_any_byte_is_found_or_is_one_that_dvc_reads(project):
    """A cut that leaves whole entries is no damage to DVC: it only forgets."""
    whole = Path("dvc.lock").read_bytes()
    for size in range(len(whole)):
        Path("dvc.lock").write_bytes(whole[:size])
        if mend._is_lock(Path("dvc.lock")):
            content = yaml.safe_load(whole[:size])
            assert whole[:size].endswith(b"\n")
            assert set(content) >= {"schema"}
    Path("dvc.lock").write_bytes(whole)
    assert mend._is_lock(Path("dvc.lock"))


def test_dvc_lock_comes_back_from_the_last_commit(project):
    shell("git", "add", "--all")
    shell("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "results")
    before = content_md5(Path("dvc.lock"))
    Path("dvc.lock").write_bytes(Path("dvc.lock").read_bytes()[:40])
    assert "restored from the last commit" in mend.mend()[0]
    assert content_md5(Path("dvc.lock")) == before


def test_nothing_is_touched_while_a_dvc_holds_its_lock(project):
    Path(".dvc/tmp/rwlock").write_text("")
    with Path(".dvc/tmp/lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert mend.mend() == []
    assert len(mend.mend()) == 1


def test_a_process_of_ours_is_known_by_its_command_line():
    assert mend._is_dvc(["/x/bin/python", "-m", "dvc", "repro"])
    assert mend._is_dvc(["/x/bin/python", "/x/bin/dvc", "repro"])
    assert mend._is_stage_command(["python", "-X", "utf8", "-m", "pipelines", "split"])
    assert not mend._is_stage_command(["python", "-m", "pipelines", "check"])
    assert not mend._is_dvc(["vim", "dvc.yaml"])
    assert not mend._is_dvc(["python", "-m"])


@pytest.mark.parametrize("under_dvc", [False, True])
def test_a_stage_that_outlived_its_dvc_is_waited_for_and_one_of_a_living_dvc_is_left_alone(project, under_dvc):
    (project / "pipelines").mkdir()
    (project / "pipelines" / "__init__.py").touch()
    (project / "pipelines" / "__main__.py").write_text("import time; time.sleep(3)")
    command = [sys.executable, "-m", "pipelines", "split"]
    if under_dvc:
        Path("dvc").write_text(f"import subprocess; subprocess.run({command!r})")
        command = [sys.executable, "dvc"]
    Path(".dvc/tmp/rwlock").write_text("")
    child = subprocess.Popen(command, cwd=project)
    until = time.monotonic() + 20
    while not any(mend._is_stage_command(mend._words(process)) for process in mend._at_work()):
        assert time.monotonic() < until
    assert len(mend.mend()) == (0 if under_dvc else 1)
    assert (child.poll() is None) == under_dvc
    child.kill()
    child.wait()


def test_a_half_made_zenml_store_is_made_anew_but_not_one_that_the_user_names(tmp_path, monkeypatch):
    client = type("Client", (), {})
    module = ModuleType("zenml.client")
    module.Client = client
    monkeypatch.setitem(sys.modules, "zenml.client", module)
    own, theirs = tmp_path / zenml_store.STORE, tmp_path / "theirs"
    for store, kept in ((own, False), (theirs, True)):
        store.mkdir()
        (store / "half").write_text("made")
        monkeypatch.setenv("ZENML_CONFIG_PATH", str(store))
        client.active_stack_model = property(lambda self, store=store: store.mkdir(exist_ok=True))
        zenml_store._create_store(tmp_path / ".locks")
        assert (store / "half").exists() == kept
        assert (store / "ready").is_file()
