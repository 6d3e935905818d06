"""Processes that speak at once over one store: a quota holds, and a revocation in another one."""

import os
import time
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from sayso.inference.errors import RefusedError
from sayso.inference.gate import Gate
from sayso.inference.store.checking import verify
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.model.audio import read_audio
from sayso.model.bundle import BUNDLED
from served import enrol
from speech import reader_clips
from test_store import in_child

if not (BUNDLED / "codec" / "config.json").is_file():
    pytest.skip(f"no bundled model: {BUNDLED} is missing", allow_module_level=True)
TEXT = "The bus was late again today. Good morning, everybody."


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Synthesizer:
    return Synthesizer(store=Store.open(tmp_path_factory.mktemp("processes") / "home"))


def test_two_processes_speak_with_one_use_left(speaker: Synthesizer, tmp_path: Path):
    enrol(speaker.store, "once", max_uses=1)
    found, ready, go = (os.pipe() for _ in range(3))

    def work(number: int) -> None:
        own = speaker.beside(Store.open(speaker.store.home))
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        try:
            own.speak("Good morning.", "once", tmp_path / f"{number}.wav", user="Ann")
        except RefusedError as refusal:
            os.write(found[1], refusal.code.encode())

    children = [in_child(lambda number=number: work(number)) for number in range(2)]
    os.close(ready[1])
    for _ in children:
        assert os.read(ready[0], 1)
    os.write(go[1], b"xx")
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert os.read(found[0], 1000) == b"quota-uses"
    assert len(list(tmp_path.iterdir())) == len(speaker.store.entries("granted", voice="once")) == 1


@pytest.mark.parametrize("how", ["file", "stream", "between mark and release"])
def test_a_voice_revoked_while_another_process_speaks_is_silent(
    speaker: Synthesizer, tmp_path: Path, how: str
):
    voice = f"vera-{how.split()[0]}"
    enrol(speaker.store, voice)
    begun, go = os.pipe(), os.pipe()

    def revoked_meanwhile() -> None:
        os.write(begun[1], b"x")
        os.read(go[0], 1)

    def work() -> None:
        own, asked = speaker.beside(Store.open(speaker.store.home)), (TEXT, voice)
        with pytest.raises(RefusedError, match="voice-revoked"):
            if how == "file":  # its grant is what the other waits for
                own.speak(*asked, tmp_path / "said.wav", user="Ann")
            elif how == "stream":
                stream = own.stream(*asked, user="Ann")
                assert next(stream).pcm
                revoked_meanwhile()
                next(stream)
            else:
                gate, rate, card = own.gate, own.bundle.codec.sample_rate, own.bundle.card_hash
                grant = gate.authorise(voice, "research", "Ann", TEXT)
                audio = read_audio(reader_clips()[0], rate)[0]
                made = gate.mark(grant, audio, rate, "said.wav", card, own.marks, own.ca)
                revoked_meanwhile()
                gate.release(grant, made, tmp_path / "said.wav")

    child = in_child(work)
    os.close(begun[1])
    assert how == "file" or os.read(begun[0], 1)
    while not (granted := speaker.store.entries("granted", voice=voice)):
        time.sleep(0.01)
    Gate(speaker.store).revoke(voice)
    os.write(go[1], b"x")
    assert os.waitpid(child, 0)[1] == 0
    assert not list(tmp_path.iterdir()) and not list((speaker.store.home / "work").iterdir())
    last = [entry.event for entry in speaker.store.entries(id=granted[0].id)][-1]
    assert last == {"f": "given-back", "s": "stream-cut", "b": "granted"}[how[0]]
    verify(speaker.store)
