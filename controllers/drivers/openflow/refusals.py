"""OpenFlow 1.4 error types and codes in the specification's words, plus Open vSwitch's own.

Only names live here: `codec` decodes the message, `switch` says what had been attempted.
"""

from __future__ import annotations

from typing import NamedTuple

_NICIRA = 0x2320
_EXPERIMENTER = 0xFFFF

_TYPES: dict[int, tuple[str, str]] = {
    0: (
        "HELLO_FAILED",
        """
        INCOMPATIBLE EPERM
        """,
    ),
    1: (
        "BAD_REQUEST",
        """
        BAD_VERSION BAD_TYPE BAD_MULTIPART BAD_EXPERIMENTER BAD_EXP_TYPE EPERM BAD_LEN BUFFER_EMPTY
        BUFFER_UNKNOWN BAD_TABLE_ID IS_SLAVE BAD_PORT BAD_PACKET MULTIPART_BUFFER_OVERFLOW
        MULTIPART_REQUEST_TIMEOUT MULTIPART_REPLY_TIMEOUT
        """,
    ),
    2: (
        "BAD_ACTION",
        """
        BAD_TYPE BAD_LEN BAD_EXPERIMENTER BAD_EXP_TYPE BAD_OUT_PORT BAD_ARGUMENT EPERM TOO_MANY BAD_QUEUE
        BAD_OUT_GROUP MATCH_INCONSISTENT UNSUPPORTED_ORDER BAD_TAG BAD_SET_TYPE BAD_SET_LEN BAD_SET_ARGUMENT
        BAD_SET_MASK BAD_METER
        """,
    ),
    3: (
        "BAD_INSTRUCTION",
        """
        UNKNOWN_INST UNSUP_INST BAD_TABLE_ID UNSUP_METADATA UNSUP_METADATA_MASK BAD_EXPERIMENTER BAD_EXP_TYPE
        BAD_LEN EPERM DUP_INST
        """,
    ),
    4: (
        "BAD_MATCH",
        """
        BAD_TYPE BAD_LEN BAD_TAG BAD_DL_ADDR_MASK BAD_NW_ADDR_MASK BAD_WILDCARDS BAD_FIELD BAD_VALUE BAD_MASK
        BAD_PREREQ DUP_FIELD EPERM
        """,
    ),
    5: (
        "FLOW_MOD_FAILED",
        """
        UNKNOWN TABLE_FULL BAD_TABLE_ID OVERLAP EPERM BAD_TIMEOUT BAD_COMMAND BAD_FLAGS CANT_SYNC BAD_PRIORITY
        IS_SYNC
        """,
    ),
    6: (
        "GROUP_MOD_FAILED",
        """
        GROUP_EXISTS INVALID_GROUP WEIGHT_UNSUPPORTED OUT_OF_GROUPS OUT_OF_BUCKETS CHAINING_UNSUPPORTED
        WATCH_UNSUPPORTED LOOP UNKNOWN_GROUP CHAINED_GROUP BAD_TYPE BAD_COMMAND BAD_BUCKET BAD_WATCH EPERM
        """,
    ),
    12: (
        "METER_MOD_FAILED",
        """
        UNKNOWN METER_EXISTS INVALID_METER UNKNOWN_METER BAD_COMMAND BAD_FLAGS BAD_RATE BAD_BURST BAD_BAND
        BAD_BAND_VALUE OUT_OF_METERS OUT_OF_BANDS
        """,
    ),
    14: (
        "BAD_PROPERTY",
        """
        BAD_TYPE BAD_LEN BAD_VALUE TOO_MANY DUP_TYPE BAD_EXPERIMENTER BAD_EXP_TYPE BAD_EXP_VALUE
        """,
    ),
    17: (
        "BUNDLE_FAILED",
        """
        UNKNOWN EPERM BAD_ID BUNDLE_EXIST BUNDLE_CLOSED OUT_OF_BUNDLES BAD_TYPE BAD_FLAGS MSG_BAD_LEN
        MSG_BAD_XID MSG_UNSUP MSG_CONFLICT MSG_TOO_MANY MSG_FAILED TIMEOUT BUNDLE_IN_PROGRESS
        """,
    ),
    18: (
        "FLOW_MONITOR_FAILED",
        """
        UNKNOWN MONITOR_EXISTS INVALID_MONITOR UNKNOWN_MONITOR BAD_COMMAND BAD_FLAGS
        """,
    ),
}

_NICIRA_CODES = {
    2: "NXM_INVALID",
    3: "NXM_BAD_TYPE",
    4: "MUST_BE_ZERO",
    11: "ACTION_MUST_BE_ZERO",
    12: "FLOW_MOD_HARDWARE",
    13: "FLOW_MOD_BAD_TABLE_ID",
    15: "BAD_CONJUNCTION",
    37: "INVALID_TLV_FIELD",
    39: "BAD_HEADER_TYPE",
    40: "UNKNOWN_ED_PROP",
    41: "BAD_ED_PROP",
    42: "ACTION_NEEDS_CONNTRACK",
    43: "MATCH_NEEDS_CONNTRACK",
}

HELLO_FAILED = 0


class Refusal(NamedTuple):
    """An OFPT_ERROR. `text` is the ASCII explanation that comes with HELLO_FAILED, else empty."""

    type: int
    code: int
    experimenter: int = 0
    text: str = ""

    def __str__(self) -> str:
        if self.type == _EXPERIMENTER:
            words = _NICIRA_CODES.get(self.code) if self.experimenter == _NICIRA else None
            return f"NICIRA/{words}" if words else f"experimenter {self.experimenter:#x} error {self.code}"
        name, codes = _TYPES.get(self.type, (f"error type {self.type}", ""))
        known = codes.split()
        word = known[self.code] if self.code < len(known) else f"code {self.code}"
        return f"{name}/{word}" + (f" ({self.text})" if self.text else "")
