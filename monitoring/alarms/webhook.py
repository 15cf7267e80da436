"""A webhook: each alarm is posted as JSON."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Literal

from pydantic import Field, field_validator

from policylab.config import Settings
from policylab.errors import RunError, UserError
from policylab.monitoring.alarms.alarm import Verdict

ATTEMPTS = 3
WAIT_S = 0.5


class Webhook(Settings):
    """Posts each alarm to an address."""

    kind: Literal["webhook"]
    url: str = Field(description="http or https")
    token_env: str | None = Field(default=None, description="environment variable whose value is the bearer token")
    timeout_s: float = Field(default=10.0, gt=0.0, le=60.0)

    @field_validator("url")
    @classmethod
    def _is_web(cls, url: str) -> str:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("a webhook needs an http or https address")
        if parts.username or parts.password:
            raise ValueError("no password in the address; name the variable of a token with token_env")
        return url

    def tell(self, verdict: Verdict) -> None:
        """Tell of a window.

        Raises:
            RunError: nobody takes it, after three attempts.
        """
        for alarm in verdict.alarms:
            self._post(json.dumps(verdict.document(alarm)).encode())

    def _post(self, body: bytes) -> None:
        request = urllib.request.Request(self.url, body, {"content-type": "application/json"})
        if self.token_env is not None:
            token = os.environ.get(self.token_env)
            if not token:
                raise UserError(f"the webhook's token is to be in {self.token_env}, which is not set")
            request.add_header("authorization", f"Bearer {token}")
        host = urllib.parse.urlsplit(self.url).netloc  # the path may be a secret
        for attempt in range(ATTEMPTS):
            try:
                with urllib.request.urlopen(request, timeout=self.timeout_s):
                    return
            except urllib.error.HTTPError as error:
                with error:
                    if error.code < 500 or attempt == ATTEMPTS - 1:
                        raise RunError(f"the webhook at {host} answers {error.code}") from None
            except OSError as error:
                if attempt == ATTEMPTS - 1:
                    raise RunError(f"the webhook at {host} cannot be reached: {error}") from None
            time.sleep(WAIT_S * 2**attempt)
