"""Words and codes by which headers name a body part and a view.

The patterns match text in the form that `plain` gives it: capitals without accents, with one space between words. The
languages are English, German, French, Spanish, Italian and Dutch. The codes are those of SNOMED CT, and of SNOMED RT,
which older devices write (PS3.16 CID 4010, 4031).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from spinescore.runtime.study import Region

__all__ = [
    "LATERAL",
    "LATERAL_CODES",
    "NEUTRAL",
    "OTHER_PARTS",
    "OTHER_PART_CODES",
    "OTHER_VIEW",
    "POSTURES",
    "POSTURE_CODES",
    "REGION_CODES",
    "REGION_WORDS",
    "SPINE_OF_A_REGION",
    "plain",
]

_BETWEEN_WORDS = re.compile("[^A-Z0-9]+")


def plain(text: str) -> str:
    """Return the text in capitals without accents, with single spaces between words."""
    letters = unicodedata.normalize("NFKD", text).upper()
    return _BETWEEN_WORDS.sub(" ", "".join(letter for letter in letters if not unicodedata.combining(letter))).strip()


REGION_WORDS: Mapping[Region, re.Pattern[str]] = {
    "cervical": re.compile(r"\bCERVI[CK]A|\bC ?SP(INE)?\b|\bHWS\b|\bHALSWIRBEL|\bCWK\b"),
    "lumbar": re.compile(r"\bLUMB|\bLOMB|\bL ?(S ?)?SP(INE)?\b|\bLWS\b|\bLENDENWIRBEL|\bLWK\b"),
}
REGION_CODES: Mapping[str, Region] = {
    "122494005": "cervical",
    "T-11501": "cervical",
    "122496007": "lumbar",
    "T-11503": "lumbar",
    "1217253001": "lumbar",  # lumbosacral, which has no SNOMED RT code here
}

# Parts other than the cervical and the lumbar spine. The whole spine, the neck, and transitions that show part of a
# region (thoracolumbar) do not count as other parts.
OTHER_PARTS: Mapping[str, re.Pattern[str]] = {
    "thoracic spine": re.compile(
        r"\bT(H|HORACIC)? ?SP(INE)?\b|\bTH?ORA[CK](I[CK]|A[LI])|\bDORSAL|\bBWS\b|\bBRUSTWIRBEL"
    ),
    "sacrum": re.compile(
        r"\bS ?SP(INE)?\b|\bSACRUM\b|\bSACRO ?(ILIAC|COCCY)|\bCOCCY|\bSI JOINT|\bKREUZBEIN|\bSTEISSBEIN|\bISG\b"
    ),
    "chest": re.compile(
        r"\bCHEST\b|\bTHORAX|\bLUNGS?\b|\bTORAX\b|\bTORACE\b|\bPOUMONS?\b|\bRIBS?\b|\bSTERNUM\b|\bBORST"
    ),
    "abdomen": re.compile(r"\bABDOM|\bKUB\b"),
    "pelvis": re.compile(
        r"\bPELVI|\bHIPS?\b|\bBECKEN|\bHUE?FT|\bBASSIN\b|\bHANCHE|\bCADERA|\bBACINO\b|\bANCA\b|\bBEKKEN|\bHEUP"
    ),
    "head": re.compile(r"\bSKULL\b|\bHEAD\b|\bSCHAE?DEL|\bCRAN(E|EO|IO|IUM)\b|\bSCHEDEL|\bJAW\b|\bMANDIB|\bSINUS"),
    "arm": re.compile(
        r"\bHANDS?\b|\bWRIST|\bFINGER|\bTHUMB|\bFOREARM|\bELBOW|\bHUMERUS|\bSHOULDER|\bCLAVIC|\bSCAPULA|\bSCHULTER"
        r"|\bELLENBOGEN|\bEPAULE|\bHOMBRO|\bSPALLA\b|\bSCHOUDER|\bMANO\b|\bPOIGNET|\bUPPER ?(LIMB|EXTREM|ARM)"
    ),
    "leg": re.compile(
        r"\bFOOT\b|\bFEET\b|\bFUSS|\bVOET|\bPIED[EI]?S?\b|\bTOES?\b|\bANKLE|\bKNEES?\b|\bKNIE|\bGENOU|\bRODILLA|\bGINOCCHIO"
        r"|\bFEMUR|\bTIBIA|\bFIBULA|\bPATELLA|\bLEGS?\b|\bLOWER ?(LIMB|EXTREM|LEG)|\bCALCANE"
    ),
}
SPINE_OF_A_REGION = re.compile(r"CERVI[CK]|LUMB|LOMB")  # within any word: thoracolumbar, lumbosacral
OTHER_PART_CODES: Mapping[str, str] = {
    **dict.fromkeys(("122495006", "T-11502"), "thoracic spine"),
    **dict.fromkeys(("54735007", "1217254007", "64688005", "39723000"), "sacrum"),
    **dict.fromkeys(("816094009", "51185008", "T-D3000", "113197003", "56873002", "39607008"), "chest"),
    **dict.fromkeys(("818981001", "113345001", "T-D4000", "818982008"), "abdomen"),
    **dict.fromkeys(("816092008", "12921003", "T-D6000", "29836001", "24136001", "T-D2500"), "pelvis"),
    **dict.fromkeys(("89546000", "T-11100", "69536005", "T-D1100", "661005", "91609006", "2095001"), "head"),
    **dict.fromkeys(("85562004", "T-D8700", "74670003", "16953009", "14975008", "85050009", "7569003"), "arm"),
    **dict.fromkeys(("76505004", "16982005", "T-D2220", "51299004", "79601000", "53120007", "40983000"), "arm"),
    **dict.fromkeys(("56459004", "T-D9700", "70258002", "72696002", "T-D9200", "71341001", "30021000"), "leg"),
    **dict.fromkeys(("61685007", "80144004", "29707007", "64234005", "68367000"), "leg"),
}

LATERAL = re.compile(
    r"\b(LAT(ERAL(E[NS]?|IS|I)?)?|LL|RL|LLD|RLD|SEITL(ICH(E[RNS]?)?)?|PROFIL[EO]?|PERFIL|ZIJDELINGS|DWARS)\b"
)
OTHER_VIEW = re.compile(
    r"\b(A ?P|P ?A|FRONTAL(E|I)?|OBL(IQUES?|IQU[AO]|ICU[AO])?|SCHRAE?G|SCHUIN|[LR]AO|[LR]PO|[LR]LO|ODONTOID|DENS"
    r"|OPEN ?MOUTH|AXIAL)\b"
)
LATERAL_CODES = frozenset(
    {"399067008", "399173006", "399198007", "30730003", "R-102CD", "R-10236", "R-10232", "G-A145"}
)

# Views that the mSASSS is not defined on: it is read on lateral views in neutral posture that show a whole region.
POSTURES: Mapping[str, re.Pattern[str]] = {
    "side bending": re.compile(
        r"\bBENDING|\bSEIT ?(NEIG|BEUG)|\bINCLIN(AISON|ACION|AZIONE) LATERAL|\b(IN)?FLE(X|SS)IONE? LATERAL"
        r"|\bLATERO ?FLE|\bLATERAL (FLEXION|INCLIN)|\bZIJWAARTS"
    ),
    "flexion": re.compile(r"FLEXION|\bFLEX(ED)?\b|FLESSION|FLEXIE\b|\bINKL(INATION)?\b|BEUGUNG"),
    "extension": re.compile(r"EXTENSI|ESTENSION|\bEXT(ENDED)?\b|\bREKL(INATION)?\b|\bRECLINA|STRECKUNG"),
    "functional view": re.compile(r"\bFUNKTION|\bFUNCTION|\bFUNCTIE|\bDYNAMI|\bDINAMIC"),
    "swimmer's view": re.compile(r"SWIMMER|SCHWIMMER|\bNAGEUR|\bNADADOR|\bNUOTATORE|ZWEMMER|\bTWINING"),
    "spot view": re.compile(
        r"\bSPOT\b|\bCONED?\b|ZIELAUFN|\bCLICHE CENTRE|\bCENTREE? SUR\b|\bCENTREE\b|\bLOCALI[ZS]AD|\bMIRATA\b"
        r"|\bINGESCHOTEN"
    ),
    "traction": re.compile(r"TRACTION|TRAKTION|\bTRACCION|\bTRAZIONE|\bTRACTIE"),
    "fulcrum view": re.compile(r"FULCR|HYPOMOCHL|\bBILLOT"),
    "oblique view": re.compile(r"\bOBL\b|\bOBLI[QC]U|\bSCHRAE?G|\bSCHUIN|\b[LR][AP]O\b"),
}
NEUTRAL = re.compile(r"\bNEUTR|\bNULLSTELLUNG")  # with another word it only lists the views of a protocol
POSTURE_CODES: Mapping[str, str] = {
    "9964006": "flexion",
    "24154002": "extension",
    "21114003": "oblique view",
    "260427002": "oblique view",  # lateral oblique
    "399182000": "oblique view",
}
