"""Gated speech over HTTP (extra `serve`): OpenAI's audio API, the consent verbs, and one page."""
