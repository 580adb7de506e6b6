"""Everything here needs coreai-core, which not every platform has."""

import pytest

pytest.importorskip("coreai.authoring", reason="coreai-core, the extra coreai, is missing")
