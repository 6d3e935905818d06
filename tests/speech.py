"""The speech that ships with the tests: see tests/data/speech/README.md for who said it."""

from pathlib import Path

SPEECH = Path(__file__).resolve().parent / "data" / "speech"
KATHLEEN = SPEECH / "kathleen"
READERS = SPEECH / "librispeech-clips"


def reader_clips() -> list[Path]:
    """One utterance each of 24 readers of LibriSpeech, Opus, 16 kHz."""
    return sorted((READERS / "audio").glob("*.opus"))
