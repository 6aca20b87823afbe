#!/usr/bin/env python3
"""Holds a list of what a program was made of against the schema of CycloneDX 1.6, strictly, with the validator of CycloneDX's own library.

    PYTHONPATH="$(tests/clients/python-libraries .ci/sbom-check.txt)" .ci/sbom-check.py <sbom.cdx.json
"""

import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read())
if error:
    sys.exit(f"the SBOM is no CycloneDX 1.6: {str(error.data).splitlines()[0]}")
print("The SBOM is CycloneDX 1.6.")
