"""What waits for the codec is heard in one batch; all get their own sound, or their own error."""

import pytest
import torch

from sayso.inference.errors import GoneError
from sayso.inference.studio import Job, Studio, Visit
from sayso.model.bundle import BUNDLED, load_bundle
from sayso.model.codecs.decoder import loudness
from sayso.model.codecs.voice_edit import Alteration
from sayso.model.engine import Request, Speech
from sayso.model.errors import InputError

if not (BUNDLED / "codec" / "config.json").is_file():
    pytest.skip(f"no bundled model: {BUNDLED} is missing", allow_module_level=True)


@pytest.fixture(scope="module")
def studio() -> Studio:
    torch.set_num_threads(1)
    return Studio(load_bundle(device="cpu"))


def decoded(studio: Studio, visit: Visit, number: int, frames: int) -> Job:
    """One that the engine has answered."""
    random = torch.Generator().manual_seed(number)
    prompt = torch.randint(1024, (studio.bundle.codec.encode(torch.zeros(1, 480)).shape[1], 40))
    codes = torch.randint(
        studio.bundle.codec.codebook_size, (studio.bundle.codec.codebooks, frames), generator=random
    )
    request = Request([1], codes, frames, random)
    return Job(visit, (number, 0), request, prompt, Alteration(), 0.0, None, Speech(codes, True))


def test_each_caller_hears_their_own(studio: Studio, monkeypatch: pytest.MonkeyPatch):
    codec, batches = studio.bundle.codec, list[int]()
    together = codec.speak_all

    def counted(said):
        batches.append(len(said))
        return together(said)

    monkeypatch.setattr(codec, "speak_all", counted)
    with studio.visit() as one, studio.visit() as other, studio.visit() as left:
        jobs = [decoded(studio, visit, n, 20 + 9 * n) for n, visit in enumerate((one, other, left))]
        left.gone.set()
        studio._sounder.give(jobs)
        for visit, job in ((one, jobs[0]), (other, jobs[1])):
            key, sound = visit.next()
            alone = codec.speak(*job.said)
            assert key == job.key and sound is not None and sound.shape == alone.shape
            assert loudness(sound - alone) < 1e-3 * loudness(alone)
        with pytest.raises(GoneError):
            left.next()
    assert batches[0] == 2


def test_what_cannot_be_heard_is_an_error_to_its_caller_alone(studio: Studio):
    with studio.visit() as one, studio.visit() as bad, studio.visit() as other:
        jobs = [decoded(studio, visit, n, 20) for n, visit in enumerate((one, bad, other))]
        jobs[1].speech = Speech(jobs[1].said.codes + 10**6, True)
        studio._sounder.give(jobs)
        for visit, job in ((one, jobs[0]), (other, jobs[2])):
            key, sound = visit.next()
            assert key == job.key and sound is not None
            assert torch.equal(sound, studio.bundle.codec.speak(*job.said))
        with pytest.raises(InputError):
            bad.next()
        assert all(visit.found.empty() for visit in (one, bad, other))
