from dataclasses import asdict, replace

import numpy as np
import pytest

from llm_i2i.errors import ArtifactError
from llm_i2i.files import write_json
from llm_i2i.llm.engine.trie import Catalogue
from llm_i2i.llm.identifiers import Vocabulary
from llm_i2i.llm.prompts import GeneratorPrompt
from llm_i2i.llm.role import Role, Task, next_item_prompt, read_task


def test_a_template_changed_after_training_is_an_error(params, tmp_path):
    task = Task.of(params.train_generator)
    write_json(asdict(task), tmp_path / "task.json")
    assert read_task(tmp_path) == task
    write_json(asdict(replace(task, template_sha256="0" * 64)), tmp_path / "task.json")
    with pytest.raises(ArtifactError, match="changed since training"):
        read_task(tmp_path)


@pytest.mark.parametrize(
    ("max_history", "context", "left"),
    [(10, 100, [0, 1, 2, 3]), (2, 100, [2, 3]), (10, 13, [1, 2, 3]), (10, 12, [2, 3]), (10, 6, [])],
)
def test_the_prompt_for_the_next_item_leaves_room_for_the_longest_answer(max_history, context, left, setup, runtime):
    # The instruction has 2 tokens, the longest answer 4.
    lengths = np.array([4, 3, 2, 2])
    tokens = np.array([[10, 11, 12, 13], [20, 21, 22, -1], [30, 31, -1, -1], [40, 41, -1, -1]])
    catalogue = Catalogue(tokens, lengths, end_id=0, terminated=False)
    prompt = GeneratorPrompt(np.array([1, 2]))
    task, vocabulary = Task("generator_v1", "", max_history, "catalogue"), Vocabulary(None, catalogue, None)
    role = Role(setup, task, prompt, vocabulary, runtime, context)
    ids = next_item_prompt(role, np.arange(4))
    assert ids.tolist() == [1, 2, *[t for i in left for t in tokens[i] if t >= 0]]
