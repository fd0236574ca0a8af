"""Delivery of an alert to its address, which is a secret: no error and no log line repeats it."""

from __future__ import annotations

import json
import logging
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from mosaic_core.contract.errors import InputError, MosaicOpsError

SEND_SECONDS = 10.0
REMEDY = "an https address that takes JSON, or one of Apprise: mailto://user:password@host"


def is_understood(address: str) -> bool:
    """Whether there is a way to deliver to an address of this form."""
    if not _is_web(address):
        return _service(address) is not None
    try:
        return bool(urlsplit(address).hostname) and not any(map(str.isspace, address))
    except ValueError:
        return False


def deliver(address: str, text: str, fields: dict[str, str]) -> None:
    """JSON to an http address; any other scheme (mailto:, slack:) through Apprise.

    InputError for an address that no service takes, MosaicOpsError when the delivery failed.
    """
    if not is_understood(address):
        raise InputError("no service takes the address of the alert webhook", remedy=REMEDY)
    if _is_web(address):
        _post(address, {"text": text, **fields})
    else:
        _notify(address, text)


def _is_web(address: str) -> bool:
    return address.startswith(("http://", "https://"))


def _post(address: str, content: dict[str, str]) -> None:
    request = urllib.request.Request(
        address,
        data=json.dumps(content).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=SEND_SECONDS):
            return
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", type(error).__name__)
        raise MosaicOpsError(f"the alert webhook: {reason}") from None


def _notify(address: str, text: str) -> None:
    service = _service(address)
    if service is None or not service.notify(body=text, title="Mosaic Ops"):
        raise MosaicOpsError("the service behind the alert webhook did not take it")


def _service(address: str) -> Any:
    """Apprise's service for an address, None when it knows none."""
    import apprise  # comes with Prefect

    logging.getLogger("apprise").setLevel(logging.CRITICAL)  # it logs addresses, secrets included
    return apprise.Apprise.instantiate(address)
