"""Reading and writing audio files: every refusal, and the formats that must come out right."""

import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from sayso.model import audio as audio_module
from sayso.model import decoding
from sayso.model.audio import read_audio, seconds_of, write_audio
from sayso.model.errors import InputError

needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="the ffmpeg program is absent")


def tone(seconds: float = 1.0, rate: int = 24_000, hertz: float = 440.0) -> np.ndarray:
    time_axis = np.arange(int(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * time_axis)).astype(np.float32)


def loudest_hertz(audio: torch.Tensor, rate: int) -> float:
    spectrum = torch.fft.rfft(audio[0]).abs()
    return float(spectrum.argmax()) * rate / audio.shape[1]


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT", "ULAW"])
def test_every_sample_format_gives_the_same_audio(tmp_path: Path, subtype: str):
    soundfile.write(tmp_path / "a.wav", tone(), 24_000, subtype=subtype)
    read = read_audio(tmp_path / "a.wav", 24_000)
    assert read.shape == (1, 24_000) and read.dtype == torch.float32
    tolerance = 0.03 if subtype in ("PCM_U8", "ULAW") else 1e-4
    assert torch.allclose(read[0], torch.from_numpy(tone()), atol=tolerance)


def test_stereo_44100_is_mixed_and_resampled(tmp_path: Path):
    left, right = tone(rate=44_100, hertz=500), tone(rate=44_100, hertz=500) * 0.2
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), 44_100, subtype="PCM_16")
    read = read_audio(tmp_path / "a.wav", 24_000)
    assert abs(read.shape[1] - 24_000) <= 1
    assert abs(loudest_hertz(read, 24_000) - 500) < 2
    assert abs(float(read.abs().max()) - 0.3) < 0.02  # the mean of 0.5 and 0.1


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".ogg", ".opus"])
def test_what_is_written_is_read_again(tmp_path: Path, suffix: str):
    path = tmp_path / f"a{suffix}"
    write_audio(path, torch.from_numpy(tone()), 24_000)
    read = read_audio(path, 24_000)
    assert abs(seconds_of(path) - 1.0) < 0.1
    assert abs(loudest_hertz(read, 24_000) - 440) < 5


def test_write_clips_instead_of_wrapping(tmp_path: Path):
    write_audio(tmp_path / "a.wav", torch.tensor([0.0, 1.5, -1.5, 0.5]), 24_000)
    samples, _ = soundfile.read(tmp_path / "a.wav")
    assert np.allclose(samples, [0, 1, -1, 0.5], atol=1e-3)


@needs_ffmpeg
def test_m4a_is_read_through_ffmpeg(tmp_path: Path):
    write_audio(tmp_path / "a.wav", torch.from_numpy(tone()), 24_000)
    command = ["ffmpeg", "-v", "error", "-i", str(tmp_path / "a.wav"), str(tmp_path / "a.m4a")]
    subprocess.run(command, check=True)
    read = read_audio(tmp_path / "a.m4a", 16_000)
    assert abs(loudest_hertz(read, 16_000) - 440) < 5
    with pytest.raises(InputError, match=r"at most 0\.5 s"):
        read_audio(tmp_path / "a.m4a", 16_000, max_seconds=0.5)


@needs_ffmpeg
def test_a_playlist_cannot_make_ffmpeg_open_other_files(tmp_path: Path):
    write_audio(tmp_path / "secret.wav", torch.from_numpy(tone()), 24_000)
    (tmp_path / "a.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path / 'secret.wav'}\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "a.ffconcat").write_text(f"ffconcat version 1.0\nfile {tmp_path / 'secret.wav'}\n")
    for name in ("a.m3u8", "a.ffconcat"):
        with pytest.raises(InputError, match="not audio"):
            read_audio(tmp_path / name, 24_000)


def test_refusals_name_the_file_and_the_fault(tmp_path: Path):
    def refused(path: Path, match: str, min_seconds: float = 0.1, max_seconds: float = 60):
        with pytest.raises(InputError, match=match) as refusal:
            read_audio(path, 24_000, min_seconds, max_seconds)
        assert path.name in str(refusal.value)

    refused(tmp_path / "absent.wav", "no file")
    refused(tmp_path, "not a file")
    (tmp_path / "zero.wav").write_bytes(b"")
    refused(tmp_path / "zero.wav", "0 bytes")
    (tmp_path / "text.wav").write_text("Not a sound at all.\n" * 50)
    refused(tmp_path / "text.wav", "not audio|ffmpeg")
    soundfile.write(tmp_path / "header.wav", np.zeros(0, np.float32), 24_000)
    refused(tmp_path / "header.wav", "0.00 s long")
    refused(tmp_path / "header.wav", "no audio samples", min_seconds=0.0)
    soundfile.write(tmp_path / "silent.wav", np.zeros(24_000, np.float32), 24_000)
    refused(tmp_path / "silent.wav", "silent")
    broken = tone()
    broken[100] = np.nan
    soundfile.write(tmp_path / "nan.wav", broken, 24_000, subtype="FLOAT")
    refused(tmp_path / "nan.wav", "not numbers")
    soundfile.write(tmp_path / "loud.wav", tone() * 32768, 24_000, subtype="FLOAT")
    refused(tmp_path / "loud.wav", "full scale")
    soundfile.write(tmp_path / "long.wav", tone(3), 24_000)
    refused(tmp_path / "long.wav", "at most 2 s", max_seconds=2.0)
    refused(tmp_path / "long.wav", "at least 5 s", min_seconds=5.0)
    soundfile.write(tmp_path / "slow.wav", tone(rate=2000), 2000)
    refused(tmp_path / "slow.wav", "2000 Hz")


def test_a_long_file_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An hour and more of audio costs nothing to refuse: no sample of it is decoded."""
    path = tmp_path / "hours.flac"
    with soundfile.SoundFile(path, "w", 8000, 1, format="FLAC") as file:
        for _ in range(70):
            file.write(np.zeros(8000 * 60, np.int16))

    def never(*_: object, **__: object):
        raise AssertionError("decoded before the length was checked")

    monkeypatch.setattr(audio_module.soundfile.SoundFile, "read", never)
    start = time.monotonic()
    with pytest.raises(InputError, match="at most 3600 s"):
        read_audio(path, 24_000)
    assert time.monotonic() - start < 1


def test_silence_is_read_where_it_is_allowed(tmp_path: Path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(24_000, np.float32), 24_000)
    assert float(read_audio(tmp_path / "silent.wav", 24_000, allow_silence=True).abs().max()) == 0


def test_write_refuses_what_it_cannot_write_well(tmp_path: Path):
    with pytest.raises(InputError, match=r"use \.wav"):
        write_audio(tmp_path / "a.xyz", torch.from_numpy(tone()), 24_000)
    with pytest.raises(InputError, match="44100"):
        write_audio(tmp_path / "a.opus", torch.from_numpy(tone()), 44_100)
    with pytest.raises(InputError, match="finite"):
        write_audio(tmp_path / "a.wav", torch.tensor([0.0, float("nan")]), 24_000)
    assert not list(tmp_path.iterdir())


def test_what_a_megabyte_may_hold_is_bounded_before_it_is_decoded(tmp_path, monkeypatch):
    """FLAC of 8 channels at 384 kHz: ten minutes of silence are 1 MB, and 7 GB once decoded."""
    soundfile.write(tmp_path / "a.flac", np.zeros((2 * 384_000, 8), np.int16), 384_000)
    read = []
    monkeypatch.setattr(decoding, "MAX_SAMPLES", 6_000_000)
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *args, **options: read.append(args))
    with pytest.raises(InputError, match="in 8 channels"):
        read_audio(tmp_path / "a.flac", 16_000)
    soundfile.write(tmp_path / "b.wav", np.zeros((80, 100), np.int16), 8000)
    with pytest.raises(InputError, match="100 channels"):
        read_audio(tmp_path / "b.wav", 16_000, min_seconds=0)
    assert not read


def test_blocks_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    noise = np.random.default_rng(0).normal(0, 0.1, (50_000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", noise, 44_100, subtype="FLOAT")
    whole = read_audio(tmp_path / "a.wav", 16_000)
    mono = audio_module.resample(noise.mean(axis=1), 44_100, 16_000)
    monkeypatch.setattr(decoding, "BLOCK", 1000)
    assert torch.equal(read_audio(tmp_path / "a.wav", 16_000), whole)
    assert torch.equal(whole[0], torch.from_numpy(mono))
