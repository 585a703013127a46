"""The hub is stood in for by a loopback HTTP server that answers as the hub's API does."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from transformers import LlamaForCausalLM

from llm_i2i.errors import BaseModelError
from llm_i2i.llm.engine.base_model import keep_first_layers, prepare_base_model
from llm_i2i.llm.engine.models import load_quantized
from tests.conftest import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PREPARE = """
import json, sys
from pathlib import Path
from llm_i2i.errors import LlmI2iError
from llm_i2i.llm.engine.base_model import prepare_base_model
from llm_i2i.llm.engine.device import Runtime
from llm_i2i.llm.engine.models import load_quantized
from llm_i2i.params import load_params
import torch
answers = {}
for wanted in json.loads(sys.argv[1]):
    repository, revision = wanted.split()
    out = Path(sys.argv[2], repository, revision)
    hub = {"source": "hub", "id": repository, "revision": revision}
    params = load_params(Path(sys.argv[3])).base_model.model_copy(update=hub)
    try:
        manifest = prepare_base_model(params, seed=0, out=out, downloads=out)
        load_quantized(out, Runtime(torch.device("cpu"), torch.float32))
        answers[wanted] = [manifest["revision"], manifest["n_parameters"], manifest["sha256"]]
    except LlmI2iError as error:
        answers[wanted] = str(error)
print(json.dumps(answers))
"""
ERRORS = {
    "team/gated main": "accept its licence",
    "team/absent main": "no such repository",
    "team/tiny v9": "no revision 'v9'",
}


@pytest.fixture(scope="module")
def hub(base_model):  # noqa: C901  # one small server
    """Serves base_model as repository `team/tiny`, gates `team/gated`, knows one revision."""

    class Hub(BaseHTTPRequestHandler):
        def answer(self, status, body=b"", **headers):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self):
            path = self.path.split("?")[0]
            if path.startswith("/api/models/team/gated"):
                return self.answer(403, X_Error_Code="GatedRepo", X_Error_Message="gated")
            if not path.startswith(("/api/models/team/tiny", "/team/tiny")):
                return self.answer(404, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
            if path.startswith("/api/"):
                revision = path.split("/revision/")[-1] if "/revision/" in path else "main"
                if revision not in ("main", COMMIT):
                    return self.answer(404, X_Error_Code="RevisionNotFound", X_Error_Message="Revision not found")
                files = sorted(p for p in base_model.iterdir() if p.is_file() and p.name != "manifest.json")
                info: object = {"id": "team/tiny", "sha": COMMIT, "siblings": [{"rfilename": p.name} for p in files]}
                if "/tree/" in path:
                    info = [{"type": "file", "path": p.name, "size": p.stat().st_size, "oid": "0" * 40} for p in files]
                return self.answer(200, json.dumps(info).encode(), Content_Type="application/json")
            file = base_model / path.split("/")[-1]
            if not file.is_file():
                return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            tag = json.dumps(file.name + str(file.stat().st_size))
            return self.answer(200, file.read_bytes(), ETag=tag, X_Repo_Commit=COMMIT)

        do_HEAD = do_GET  # noqa: N815  # the name the library looks for

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def prepare_from(endpoint, folder, *wanted):
    """In a process of its own: the hub client reads its endpoint and cache folder at import."""
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(folder / "cache"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "no_proxy": "127.0.0.1",
    }
    arguments = [json.dumps(wanted), str(folder), str(ROOT / "params.yaml")]
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def prepared(hub, tmp_path_factory):
    """Where models were asked for, and what came of each: what fails goes first, while nothing is in the cache."""
    folder = tmp_path_factory.mktemp("hub")
    return folder, prepare_from(hub, folder, *ERRORS, "team/tiny main")


def test_hub_pins_the_commit_and_loads_from_the_cache(prepared, base_model):
    folder, answers = prepared
    expected = json.loads((base_model / "manifest.json").read_text())
    assert answers["team/tiny main"] == [COMMIT, expected["n_parameters"], expected["sha256"]]
    out = folder / "team" / "tiny" / "main"
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["source"] == "hub"
    assert sorted(p.name for p in out.iterdir()) == ["manifest.json"]


@pytest.mark.parametrize("wanted", ERRORS)
def test_hub_errors_say_what_to_do(prepared, wanted):
    assert ERRORS[wanted] in prepared[1][wanted]


def test_no_network(tmp_path):
    answers = prepare_from("http://127.0.0.1:9", tmp_path, "team/tiny main")
    assert "cannot be reached" in answers["team/tiny main"]


def test_path_pins_the_weights_by_hash(base_model, runtime, tmp_path, params):
    source = params.base_model.model_copy(update={"source": "path", "path": str(base_model)})
    manifest = prepare_base_model(source, seed=0, out=tmp_path, downloads=tmp_path)
    assert manifest["sha256"] == json.loads((base_model / "manifest.json").read_text())["sha256"]
    assert load_quantized(tmp_path, runtime).config.model_type == "llama"


def test_a_folder_without_weights_is_an_error(tmp_path, params):
    source = params.base_model.model_copy(update={"source": "path", "path": str(tmp_path / "nothing")})
    with pytest.raises(BaseModelError, match="Hugging Face model folder"):
        prepare_base_model(source, seed=0, out=tmp_path, downloads=tmp_path)


def test_random_model_depends_on_its_seed_only(base_model, tmp_path, params):
    source = params.base_model.model_copy(update={"source": "random"})
    again = prepare_base_model(source, seed=7, out=tmp_path / "a", downloads=tmp_path)
    other = prepare_base_model(source, seed=8, out=tmp_path / "b", downloads=tmp_path)
    assert again["sha256"] == json.loads((base_model / "manifest.json").read_text())["sha256"]
    assert other["sha256"] != again["sha256"]


@torch.no_grad()
def test_the_first_layers_alone_are_kept(base_model, tmp_path):
    model = LlamaForCausalLM.from_pretrained(base_model)
    tokens = torch.tensor([[5, 9, 7]])
    after_one = model(tokens, output_hidden_states=True).hidden_states[1]
    expected = model.lm_head(model.model.norm(after_one))
    keep_first_layers(model, 1)
    model.save_pretrained(tmp_path)
    loaded = LlamaForCausalLM.from_pretrained(tmp_path)
    assert len(loaded.model.layers) == 1
    torch.testing.assert_close(loaded(tokens).logits, expected)
