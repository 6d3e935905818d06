"""The learnt decoder: shapes, its place in a codec and on a card, and how it is fitted."""

import copy
import dataclasses
import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sayso.model.bundle import BUNDLED, load_bundle
from sayso.model.codecs.base import Said
from sayso.model.codecs.decoder import Decoder, DecoderConfig
from sayso.model.codecs.timbre_codec import TimbreCodec
from sayso.model.codecs.voice_edit import Alteration
from sayso.model.codecs.world import Features, WorldConfig, alter, emphasise, to_rows
from sayso.model.errors import CheckpointError, CorpusError, InputError
from sayso.model.loudness import HIGHEST, as_loud, loudness
from sayso.training.fitting.decoder import fit_decoder, fit_examples
from sayso.training.fitting.decoder_examples import Example, gather, in_turn, read_example
from sayso.training.fitting.decoder_recipe import DecoderRecipe, read_decoder_recipe
from sayso.training.fitting.decoder_run import Discriminator as Judge
from sayso.training.fitting.decoder_run import Run, StoppedError, batch, joined, set_scales
from sayso.training.fitting.listener import fit_listener
from sayso.training.held_out import HeldOut
from sayso.training.readers import Utterance
from sayso.training.recordings import Recording
from speech import KATHLEEN, READERS
from training_fixtures import CONFIGS

SMALL = DecoderConfig(width=8, blocks=2, kernel=3)
QUICK = DecoderRecipe(
    *(SMALL, 4),
    batch=2,
    frames=20,
    adversarial_from=3,
    channels=4,
    listener_steps=3,
    clear_steps=2,
    joined_steps=2,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def made_up(count: int = 8, frames: int = 50) -> list[Example]:
    """What is recorded follows from what is said, twice as often."""
    random = torch.Generator().manual_seed(0)
    way = torch.randn(37, 20, generator=random) / 6
    said = [torch.randn(frames, 37, generator=random).cumsum(0) / 3 for _ in range(count)]
    ids = [torch.randint(-1, 5, (frames,), generator=random) for _ in range(count)]
    return [
        Example([x, x + 0.1, x + 0.2], (x @ way).repeat_interleave(2, 0), symbols)
        for x, symbols in zip(said, ids, strict=True)
    ]


def test_two_frames_of_20_for_each_of_37():
    decoder = Decoder(SMALL)
    assert decoder(torch.randn(2, 11, 37)).shape == (2, 22, 20)
    with pytest.raises(ValueError, match="odd"):
        DecoderConfig(kernel=4)
    with pytest.raises(ValueError, match="at least 1"):
        DecoderConfig(width=0)


@pytest.mark.parametrize("frames", [1, 7, 50])
@pytest.mark.parametrize("rate", [16000, 24000, 48000])
def test_it_speaks_20_ms_a_frame_at_any_rate(frames: int, rate: int):
    decoder = Decoder(SMALL).eval()
    [audio] = decoder.speak([torch.randn(frames, 37, dtype=torch.float64)], rate)
    assert audio.shape == (frames * rate // 50,) and audio.dtype == torch.float32
    assert audio.abs().max() <= 1 and not audio.requires_grad
    assert torch.isfinite(audio).all()
    with pytest.raises(InputError, match="NaN"):
        decoder.speak([torch.full((frames, 37), math.nan)], rate)


def test_a_frame_is_heard_no_further_than_the_kernels_reach():
    decoder = Decoder(SMALL).eval()
    said = torch.randn(1, 40, 37)
    other = said.clone()
    other[:, 20] += 1
    differ = (decoder(said) != decoder(other)).any(2)[0].nonzero()[:, 0] // 2
    assert differ.min() == 20 - 3 and differ.max() == 20 + 3  # 1 for each of 3 convolutions


def test_it_survives_saving_and_says_who_it_is(tmp_path: Path):
    decoder = Decoder(SMALL)
    decoder.save(tmp_path)
    loaded = Decoder.load(tmp_path)
    assert loaded.identity == decoder.identity
    assert not any("vocoder" in name for name in decoder.state_dict())  # it ships apart
    with torch.no_grad():
        loaded.last.bias.add_(1e-3)
    assert loaded.identity != decoder.identity
    config = json.loads((tmp_path / "config.json").read_text()) | {"blocks": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="does not fit"):
        Decoder.load(tmp_path)


def test_what_it_is_told_is_heard_where_it_is_said():
    decoder = Decoder(dataclasses.replace(SMALL, symbols=5)).eval()
    features = torch.randn(1, 40, 37)
    said = torch.randint(5, (1, 40))
    other = said.clone()
    other[:, 20] = (other[:, 20] + 1) % 5
    differ = (decoder(features, said) != decoder(features, other)).any(2)[0].nonzero()[:, 0] // 2
    assert differ.min() == 20 - 2 and differ.max() == 20 + 2  # behind the first convolution
    untold = decoder(features, torch.full((1, 40), -1))
    assert torch.equal(decoder(features), untold) and not torch.equal(
        decoder(features, said), untold
    )
    plain = Decoder(SMALL)
    assert torch.equal(plain(features, said), plain(features))
    assert decoder.identity != plain.identity


def test_what_is_said_keeps_its_place_when_speech_is_slowed_or_emphasised():
    said = np.repeat(np.arange(4), 10)
    features = Features(np.zeros((40, 32)), np.full(40, 100.0), np.zeros((40, 3)), said)
    config = WorldConfig()
    slower = alter(features, config, Alteration(speed=0.5)).symbols
    assert slower is not None and (abs(np.bincount(slower) - 20) <= 1).all()
    longer = emphasise(features, said == 2, config).symbols
    assert longer is not None and len(longer) > 40
    assert list(np.unique(longer)) == [0, 1, 2, 3] and np.argmax(np.bincount(longer)) == 2


@pytest.fixture(scope="module")
def bundled() -> TimbreCodec:
    codec = load_bundle().codec
    assert isinstance(codec, TimbreCodec)
    return codec


def test_sentences_sound_together_as_they_do_alone(bundled: TimbreCodec):
    """Each as long as ever, and a thousandth of its loudness from what it is alone, at the most."""
    random, said = torch.Generator().manual_seed(2), []
    for frames, edit in ((60, None), (9, Alteration(speed=1.5)), (110, None), (60, None)):
        prompt = torch.randint(1024, (bundled.prompts.codebooks, frames), generator=random)
        said.append(Said(bundled.read(prompt), prompt, edit))
    said[2] = said[2]._replace(stressed=torch.arange(110) < 40)
    said[3] = said[3]._replace(prompt=said[3].prompt[:, :0])
    alone = [bundled.speak(*one) for one in said]
    for one, together in zip(alone, bundled.speak_all(said), strict=True):
        assert one.shape == together.shape and loudness(one - together) < 1e-3 * loudness(one)


def test_what_the_model_says_is_heard_through_it(bundled: TimbreCodec):
    assert bundled.decoder is not None
    random = torch.Generator().manual_seed(1)
    prompt = torch.randint(1024, (bundled.prompts.codebooks, 60), generator=random)
    codes = bundled.read(prompt)
    said = bundled.voiced(codes, prompt)
    heard = bundled.speak(codes, prompt)
    assert len(heard) == 60 * 480
    rate = bundled.sample_rate
    [made] = bundled.decoder.speak([torch.from_numpy(to_rows(said))], rate)
    assert torch.equal(heard, as_loud(made, loudness(bundled.hear(prompt))))
    assert abs(math.log10(loudness(heard) / loudness(bundled.hear(prompt)))) < 0.01
    said = bundled.voiced(codes, prompt[:, :0])
    [made] = bundled.decoder.speak([torch.from_numpy(to_rows(said))], rate)
    assert torch.equal(bundled.speak(codes, prompt[:, :0]), made)
    plain = TimbreCodec(bundled.prompts, bundled.timbre, bundled.neutral)
    assert plain.sound_parts == {} and plain.parts == bundled.parts
    assert not torch.equal(plain.speak(codes, prompt), heard)
    slower = bundled.speak(codes, prompt, Alteration(speed=0.5))
    assert len(slower) == 120 * 480
    higher = bundled.speak(codes, prompt, Alteration(pitch=4, formant=1.1))
    assert len(higher) == len(heard) and not torch.equal(higher, heard)
    with pytest.raises(CheckpointError, match="not of one model"):
        TimbreCodec(
            bundled.prompts, bundled.timbre, bundled.neutral, Decoder(DecoderConfig(features=36))
        )


def test_loudness_is_brought_up_or_down_without_clipping():
    speech = torch.randn(24000) * torch.linspace(0, 0.1, 24000)
    assert loudness(as_loud(speech, 0.02)) == pytest.approx(0.02, rel=1e-3)
    assert as_loud(speech, 3.0).abs().max() == pytest.approx(HIGHEST)
    quiet = torch.cat([speech, torch.zeros(48000)])  # pauses are no speech
    assert loudness(quiet) < 1.3 * loudness(as_loud(speech, loudness(speech)))
    assert loudness(quiet) > 0.7 * loudness(speech)
    assert torch.equal(as_loud(torch.zeros(100), 0.1), torch.zeros(100))
    assert loudness(torch.full((7,), 0.5)) == pytest.approx(0.5 * math.sqrt(7 / 720))


@pytest.mark.parametrize("damage", ["missing", "not in the card", "another"])
def test_a_decoder_that_is_not_as_the_card_says_is_refused(damage: str, tmp_path: Path):
    folder = tmp_path / "model"
    shutil.copytree(BUNDLED, folder)
    if damage == "missing":
        shutil.rmtree(folder / "timbre" / "decoder")
    elif damage == "another":
        other = Decoder.load(folder / "timbre" / "decoder")
        with torch.no_grad():
            other.last.bias.add_(0.1)
        other.save(folder / "timbre" / "decoder")
    else:
        card = json.loads((folder / "card.json").read_text())
        del card["decoder"]
        (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match="codec on the card"):
        load_bundle(folder)


def test_it_learns_what_is_said_and_the_adversary_learns_to_tell():
    examples = made_up(1)
    recipe = dataclasses.replace(QUICK, steps=150, rate=5e-3, ema=0.9, adversarial_from=100)
    torch.manual_seed(0)
    decoder = Decoder(SMALL)
    set_scales(decoder, examples)
    known = decoder.scaled_input(examples[0].said[0])
    wanted = decoder.scaled_output(examples[0].recorded)
    for rows in (known, wanted):
        assert rows.mean(0).abs().max() < 1e-3 and (rows.std(0) - 1).abs().max() < 0.05
    run = Run(recipe, decoder, Judge(37, 4))
    before = run.validate(examples)
    figures = [run.step(*batch(examples, recipe, n), n, recipe.steps) for n in range(recipe.steps)]
    assert run.validate(examples) < 0.5 * before
    assert "discriminator" not in figures[99] and "discriminator" in figures[100]
    assert figures[-1]["discriminator"] < figures[100]["discriminator"]


def test_pieces_are_of_one_place_in_both():
    examples = made_up(3, 30)
    recipe = dataclasses.replace(QUICK, frames=40, batch=5)  # longer than they are: they go round
    said, symbols, recorded = batch(examples, recipe, 7)
    assert said.shape == (5, 40, 37) and recorded.shape == (5, 80, 20)
    assert torch.equal(said[:, 30:], said[:, :10])
    whole = [(rows, each) for each in examples for rows in each.said]
    for x, ids, y in zip(said, symbols, recorded, strict=True):
        at = [(r, t, int(n)) for r, t in whole for n in (r == x[0]).all(1).nonzero()[:, 0]]
        ((rows, each, place),) = at
        assert each.symbols is not None
        assert torch.equal(x[:30], rows.roll(-place, 0))
        assert torch.equal(y[:60], each.recorded.roll(-2 * place, 0))
        assert (ids == -1).all() or torch.equal(ids[:30], each.symbols.roll(-place, 0))
    never = dataclasses.replace(recipe, untold=1.0)
    assert (batch(examples, never, 7)[1] == -1).all()
    again = batch(examples, recipe, 7)
    assert torch.equal(said, again[0]) and not torch.equal(said, batch(examples, recipe, 8)[0])


def test_a_listener_makes_it_clear_and_the_mean_of_two_is_learnt():
    torch.manual_seed(0)
    examples = made_up(4, 60)
    for each in examples:  # what is said is in what was recorded, and not in the features
        assert each.symbols is not None
        each.recorded[:, 3] = each.symbols.repeat_interleave(2) * 2.0
    listener = fit_listener(examples, [], 5, 150, 0, lambda line: None)
    symbols = examples[0].symbols
    assert symbols is not None
    exact = listener.unclear(examples[0].recorded[None], symbols[None])
    assert exact < listener.unclear(examples[0].recorded[None].flip(1), symbols[None])
    steps = 120
    recipe = dataclasses.replace(
        QUICK, steps=steps, rate=5e-3, ema=0.9, clear_weight=1.0, joined_steps=steps, untold=0.0
    )
    natural = Decoder(dataclasses.replace(SMALL, symbols=5))
    set_scales(natural, examples)
    run = Run(recipe, copy.deepcopy(natural), Judge(37, 4), listener)
    told = [run.step(*batch(examples, recipe, n), n, steps)["unclear"] for n in range(steps)]
    assert np.mean(told[-20:]) < np.mean(told[:20]) - 0.2
    clear = run.averaged()
    mean = joined(recipe, natural, clear, examples, lambda line: None)
    said = examples[0].said[0][None]
    with torch.no_grad():
        a, b, made = (each(said, symbols[None]) for each in (natural, clear, mean))
    aim = torch.lerp(a, b, recipe.clear_share)
    assert (made - aim).abs().mean() < 0.5 * min(float((x - aim).abs().mean()) for x in (a, b))


def test_every_speaker_has_a_turn():
    none = Recording(Path())
    some = [Utterance(f"{who}{n}", who, "", none) for who in "ab" for n in range(3)]
    some.append(Utterance("c0", "c", "", none))
    assert [each.id for each in in_turn(some, 5)] == ["a0", "b0", "c0", "a1", "b1"]


RULE = HeldOut(utterances={"kathleen": 47, "librispeech-clips": 11})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    """Fitted to four of Kathleen's recordings and of the readers', in one go."""
    out = tmp_path_factory.mktemp("decoder")
    recipe = dataclasses.replace(QUICK, steps=8, save_every=4, held_out_every=3)
    roots = {"kathleen": KATHLEEN, "librispeech-clips": READERS}
    fit_decoder(recipe, BUNDLED, roots, out, RULE, lambda line: None)
    return out


def test_examples_are_what_codes_say_and_what_was_recorded(fitted: Path, bundled: TimbreCodec):
    paths = sorted((fitted / "examples").iterdir())
    assert len(paths) >= 7
    examples = [read_example(path) for path in paths]
    for each in examples:
        frames = len(each.said[0])
        assert all(said.shape == (frames, 37) for said in each.said)
        assert each.recorded.shape == (2 * frames, 20)
    assert sum(len(each.said) == 3 for each in examples) >= 4  # with NAR's, and AR's and NAR's
    for each in [each for each in examples if len(each.said) == 3]:
        own, by_nar, by_both = each.said
        assert not torch.equal(own, by_nar)  # but the same words at the same time
        assert not torch.equal(by_nar, by_both)
        assert np.corrcoef(own[:, 0], by_nar[:, 0])[0, 1] > 0.8
        assert np.corrcoef(own[:, 0], by_both[:, 0])[0, 1] > 0.6
        assert each.symbols is not None and len(each.symbols) == len(own)
        assert -1 <= each.symbols.min() and len(each.symbols.unique()) > 8
    loud = [np.corrcoef(each.said[0][:, 0], each.recorded[::2, 0])[0, 1] for each in examples]
    assert np.median(loud) > 0.7  # both follow loudness


def test_it_says_what_it_was_fitted_on_and_goes_on_where_it_was(fitted: Path, tmp_path: Path):
    listed = json.loads((fitted / "corpora.json").read_text())
    assert [entry["name"] for entry in listed["corpora"]] == ["kathleen", "librispeech-clips"]
    assert listed["held_out"]["utterances"] == RULE.utterances
    recipe = dataclasses.replace(QUICK, steps=8, save_every=4, held_out_every=3)
    roots = {"kathleen": KATHLEEN, "librispeech-clips": READERS}
    killed = tmp_path / "killed"
    shutil.copytree(fitted, killed)
    (killed / "checkpoints" / "step-00000008.safetensors").unlink()
    (killed / "checkpoints" / "clear" / "step-00000002.safetensors").unlink()
    (killed / "model.safetensors").unlink()
    said: list[str] = []
    made = fit_decoder(recipe, BUNDLED, roots, killed, RULE, said.append)
    assert made.identity == Decoder.load(fitted).identity
    assert next(line for line in said if "step" in line).startswith("decoder step 8:")
    with pytest.raises(InputError, match="other settings"):
        fit_decoder(dataclasses.replace(recipe, rate=1.0), BUNDLED, roots, killed, RULE)


def test_a_run_that_is_asked_to_end_saves_and_goes_on(tmp_path: Path):
    recipe = dataclasses.replace(QUICK, steps=6, save_every=2, held_out_every=2)
    examples = {f"kathleen~u{n}": each for n, each in enumerate(made_up())}

    def asking(line: str) -> None:
        if line.startswith("decoder step 2"):
            os.kill(os.getpid(), signal.SIGTERM)

    def fit(out: Path, report: Callable[[str], None]) -> Decoder:
        return fit_examples(recipe, examples, 5, ["kathleen"], out, RULE, report)

    with pytest.raises(StoppedError, match="after step 2"):
        fit(tmp_path / "stopped", asking)
    assert (tmp_path / "stopped" / "checkpoints" / "step-00000002.safetensors").is_file()
    whole = fit(tmp_path / "whole", lambda line: None)
    assert fit(tmp_path / "stopped", lambda line: None).identity == whole.identity


def test_what_cannot_be_fitted_is_refused(tmp_path: Path):
    with pytest.raises(CorpusError, match="not on the list"):
        fit_decoder(QUICK, BUNDLED, {"voxceleb2": KATHLEEN}, tmp_path, RULE)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no GPU"):
            recipe = dataclasses.replace(QUICK, accelerator="cuda")
            fit_decoder(recipe, BUNDLED, {"kathleen": KATHLEEN}, tmp_path, RULE)
    with pytest.raises(CheckpointError, match="cannot be read"):
        gather(tmp_path, {"kathleen": KATHLEEN}, tmp_path / "e", RULE, 1)
    broken = [Example([each.said[0] * math.nan], each.recorded) for each in made_up(2)]
    run = Run(QUICK, Decoder(SMALL), Judge(37, 4))
    assert math.isnan(run.step(*batch(broken, QUICK, 0), 0, 4)["distance"])


def test_the_recipe_says_what_the_defaults_are(tmp_path: Path):
    assert read_decoder_recipe(CONFIGS / "mini" / "gpu-decoder.yaml").accelerator == "cuda"
    recipe = read_decoder_recipe(CONFIGS / "mini" / "decoder.yaml")
    assert recipe.decoder == DecoderConfig()
    text = (CONFIGS / "mini" / "decoder.yaml").read_text()
    for name in (field.name for field in dataclasses.fields(DecoderRecipe)):
        assert f"\n{name}:" in f"\n{text}", name
    for change, message in (
        ("batch: 0", "above 0"),
        ("ema: 1.0", "ema"),
        ("batches: 3", "batches"),
    ):
        bad = tmp_path / "bad.yaml"
        bad.write_text(change + "\n")
        with pytest.raises(InputError, match=message):
            read_decoder_recipe(bad)
    with pytest.raises(InputError, match="does not exist"):
        read_decoder_recipe(tmp_path / "none.yaml")
