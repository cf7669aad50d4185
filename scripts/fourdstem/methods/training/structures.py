"""Crystal structures that the training patterns are made of, written down as crystallographic facts.

Cell constants in Å and degrees and one representative of each orbit of atoms, rounded as textbooks give them;
generators of the space groups in the standard settings of International Tables A (origin choice 2, hexagonal axes).
No files, and nothing but numpy: training has to run where spglib, diffpy and orix are not installed.

Atoms scatter as screened Coulomb potentials (Wentzel's model with Lenz's radius; Reimer & Kohl, Transmission
Electron Microscopy, section 5.1.3): ``f(g) = 2 Z R² / (a_H (1 + (2 π g R)²))``, ``R = a_H Z^(-1/3)``. It is right to a
third or so, which is less than what thickness, orientation and many-beam scattering do to an intensity; and it is
neither the model of the matcher nor that of the simulated scans.
"""

import functools
from dataclasses import dataclass

import numpy as np

BOHR_ANGSTROM = 0.529177
MEAN_SQUARE_ANGSTROM2 = 0.006  # of the displacement of every atom

_ELEMENTS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb "
    "Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au "
    "Hg Tl Pb Bi"
)
_SYMBOLS = _ELEMENTS.split()

_F = "x,y,z x,y+1/2,z+1/2 x+1/2,y,z+1/2 x+1/2,y+1/2,z"
_I = "x,y,z x+1/2,y+1/2,z+1/2"
_C = "x,y,z x+1/2,y+1/2,z"
_R = "x,y,z x+2/3,y+1/3,z+1/3 x+1/3,y+2/3,z+2/3"
_CUBIC = "z,x,y -y,x,z -x,-y,-z"
_GENERATORS = {
    2: "-x,-y,-z",
    12: f"{_C} -x,y,-z -x,-y,-z",
    14: "-x,y+1/2,-z+1/2 -x,-y,-z",
    15: f"{_C} -x,y,-z+1/2 -x,-y,-z",
    62: "-x+1/2,-y,z+1/2 -x,y+1/2,-z -x,-y,-z",
    64: f"{_C} -x,-y+1/2,z+1/2 -x,y+1/2,-z+1/2 -x,-y,-z",
    88: f"{_I} -x+1/2,-y,z+1/2 -y+3/4,x+1/4,z+1/4 -x,-y,-z",
    99: "-x,-y,z -y,x,z x,-y,z",
    122: f"{_I} -x,-y,z y,-x,-z -x+1/2,y,-z+3/4",
    136: "-x,-y,z -y+1/2,x+1/2,z+1/2 -x+1/2,y+1/2,-z+1/2 -x,-y,-z",
    139: f"{_I} -x,-y,z -y,x,z -x,y,-z -x,-y,-z",
    140: f"{_I} -x,-y,z -y,x,z -x,y,-z+1/2 -x,-y,-z",
    141: f"{_I} -x+1/2,-y,z+1/2 -y+1/4,x+3/4,z+1/4 -x+1/2,y,-z+1/2 -x,-y,-z",
    148: f"{_R} -y,x-y,z -x,-y,-z",
    154: "-y,x-y,z+2/3 y,x,-z",
    161: f"{_R} -y,x-y,z -y,-x,z+1/2",
    164: "-y,x-y,z y,x,-z -x,-y,-z",
    166: f"{_R} -y,x-y,z y,x,-z -x,-y,-z",
    167: f"{_R} -y,x-y,z y,x,-z+1/2 -x,-y,-z",
    176: "-y,x-y,z -x,-y,z+1/2 -x,-y,-z",
    186: "-y,x-y,z -x,-y,z+1/2 -y,-x,z",
    187: "-y,x-y,z x,y,-z -y,-x,z",
    194: "-y,x-y,z -x,-y,z+1/2 y,x,-z -x,-y,-z",
    205: "-x+1/2,-y,z+1/2 -x,y+1/2,-z+1/2 z,x,y -x,-y,-z",
    206: f"{_I} -x+1/2,-y,z+1/2 -x,y+1/2,-z+1/2 z,x,y -x,-y,-z",
    216: f"{_F} -x,-y,z -x,y,-z z,x,y y,x,z",
    221: _CUBIC,
    225: f"{_F} {_CUBIC}",
    227: f"{_F} -x+3/4,-y+1/4,z+1/2 -x+1/4,y+1/2,-z+3/4 z,x,y y+3/4,x+1/4,-z+1/2 -x,-y,-z",
    229: f"{_I} {_CUBIC}",
}

# Name, share of the data, space group, cell (a; a, c; a, b, c; or all six), atoms.
_TABLE = """
aluminium    train 225 4.0495                 Al 0 0 0
gold         train 225 4.0782                 Au 0 0 0
iron         train 229 2.8665                 Fe 0 0 0
tungsten     train 229 3.1652                 W 0 0 0
silicon      train 227 5.4310                 Si .125 .125 .125
rocksalt     train 225 5.6402                 Na 0 0 0; Cl .5 .5 .5
periclase    train 225 4.2112                 Mg 0 0 0; O .5 .5 .5
arsenide     train 216 5.6533                 Ga 0 0 0; As .25 .25 .25
fluorite     train 225 5.4631                 Ca 0 0 0; F .25 .25 .25
titanate     train 221 3.9050                 Sr 0 0 0; Ti .5 .5 .5; O .5 .5 0
aluminide    train 221 2.8870                 Ni 0 0 0; Al .5 .5 .5
spinel       train 227 8.0840                 Mg .125 .125 .125; Al .5 .5 .5; O .2624 .2624 .2624
pyrite       train 205 5.4166                 Fe 0 0 0; S .3847 .3847 .3847
magnesium    train 194 3.2094 5.2105          Mg .33333 .66667 .25
titanium     train 194 2.9506 4.6788          Ti .33333 .66667 .25
wurtzite     train 186 3.2500 5.2070          Zn .33333 .66667 0; O .33333 .66667 .3820
molybdenite  train 194 3.1604 12.295          Mo .33333 .66667 .25; S .33333 .66667 .621
carbide      train 187 2.9065 2.8366          W 0 0 0; C .33333 .66667 .5
rutile       train 136 4.5937 2.9587          Ti 0 0 0; O .3053 .3053 0
anatase      train 141 3.7845 9.5143          Ti 0 .75 .125; O 0 .25 .0832
tin          train 141 5.8316 3.1815          Sn 0 .75 .125
ferroelectric train 99 3.9040 4.1520          Pb 0 0 0; Ti .5 .5 .5377; O .5 .5 .1118; O .5 0 .6174
corundum     train 167 4.7602 12.993          Al 0 0 .3522; O .3063 0 .25
calcite      train 167 4.9896 17.061          Ca 0 0 0; C 0 0 .25; O .2568 0 .25
niobate      train 161 5.1483 13.863          Nb 0 0 0; Li 0 0 .2787; O .0492 .3446 .0647
quartz       train 154 4.9134 5.4052          Si .4697 0 .66667; O .4133 .2672 .78553
ilmenite     train 148 5.0880 14.085          Fe 0 0 .3553; Ti 0 0 .1465; O .3174 .0233 .2450
telluride    train 166 4.3860 30.497          Bi 0 0 .4000; Te 0 0 0; Te 0 0 .2097
triphylite   train 62 10.332 6.010 4.692      Li 0 0 0; Fe .2822 .25 .9747; P .0948 .25 .4182;\
 O .0968 .25 .7428; O .4571 .25 .2060; O .1656 .0465 .2848
cementite    train 62 5.0910 6.7434 4.5260    Fe .0367 .25 .8402; Fe .1816 .0666 .3374; C .8770 .25 .4440
phosphorus   train 64 3.3140 10.478 4.3763    P 0 .10168 .08056
baddeleyite  train 14 5.1505 5.2116 5.3173 90 99.23 90 Zr .2754 .0395 .2083; O .0700 .3317 .3447; O .4496 .7569 .4792
tenorite     train 15 4.6837 3.4226 5.1288 90 99.54 90 Cu .25 .25 0; O 0 .4184 .25
kyanite      train 2 7.1262 7.8520 5.5724 89.99 101.11 106.03 Al .3254 .7040 .4582; Al .2974 .6989 .9505;\
 Al .0998 .3862 .6403; Al .1120 .9175 .1649; Si .2962 .0649 .7066; Si .2910 .3317 .1892; O .1095 .1468 .1288;\
 O .1230 .6856 .1812; O .2747 .4545 .9547; O .2831 .9354 .9353; O .1084 .1520 .6669; O .1219 .6307 .6389;\
 O .2822 .4453 .4288; O .2915 .9467 .4659; O .5008 .2749 .2440; O .5015 .2312 .7553
scheelite    train 88 5.2430 11.376           Ca 0 .25 .625; W 0 .25 .125; O .1507 .0086 .2106
apatite      train 176 9.3970 6.8780          Ca .66667 .33333 .0010; Ca .99288 .24227 .25;\
 P .36895 .39850 .25; O .4849 .3273 .25; O .4667 .5875 .25; O .2575 .3421 .0705; F 0 0 .25
copper       validate 225 3.6149              Cu 0 0 0
chromium     validate 229 2.8848              Cr 0 0 0
blende       validate 216 5.4093              Zn 0 0 0; S .25 .25 .25
lanthanum    validate 221 3.8100              La 0 0 0; Al .5 .5 .5; O .5 .5 0
zirconium    validate 194 3.2320 5.1470       Zr .33333 .66667 .25
cassiterite  validate 136 4.7370 3.1860       Sn 0 0 0; O .3071 .3071 0
haematite    validate 167 5.0380 13.772       Fe 0 0 .3553; O .3059 0 .25
bixbyite     validate 206 10.117              In .25 .25 .25; In .4668 0 .25; O .3909 .1547 .3820
nickel       test 225 3.5240                  Ni 0 0 0
molybdenum   test 229 3.1470                  Mo 0 0 0
germanium    test 227 5.6579                  Ge .125 .125 .125
ceria        test 225 5.4110                  Ce 0 0 0; O .25 .25 .25
magnetite    test 227 8.3970                  Fe .125 .125 .125; Fe .5 .5 .5; O .2549 .2549 .2549
cobalt       test 194 2.5071 4.0695           Co .33333 .66667 .25
nitride      test 186 3.1900 5.1890           Ga .33333 .66667 0; N .33333 .66667 .3770
silicide     test 139 3.2064 7.8478           Mo 0 0 0; Si 0 0 .3335
chalcopyrite test 122 5.2890 10.423           Cu 0 0 0; Fe 0 0 .5; S .2574 .25 .125
theta        test 140 6.0670 4.8770           Al .1581 .6581 0; Cu 0 0 .25
iodide       test 164 4.5550 6.9770           Pb 0 0 0; I .33333 .66667 .2675
forsterite   test 62 10.195 5.9810 4.7560     Mg 0 0 0; Mg .2774 .25 .9915; Si .0940 .25 .4262;\
 O .0913 .25 .7657; O .4474 .25 .2215; O .1628 .0331 .2777
gallia       test 12 12.230 3.0400 5.8000 90 103.70 90 Ga .0904 0 .7948; Ga .3414 0 .6857; O .1674 0 .1011;\
 O .4957 0 .2553; O .8279 0 .4365
"""


@dataclass(frozen=True)
class Structure:
    """One crystal.

    Attributes
    ----------
    name : str
    share : str
        "train", "validate" or "test": the part of the data that it is kept to.
    space_group : int
    lattice : ndarray of shape (3, 3)
        Rows a, b, c in Å.
    symbols : tuple of str
    positions : ndarray of shape (n, 3)
        Fractional, of all atoms of the cell.
    """

    name: str
    share: str
    space_group: int
    lattice: np.ndarray
    symbols: tuple[str, ...]
    positions: np.ndarray

    @functools.cached_property
    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """(n, 3) vectors g in 1/Å up to 2.2 1/Å and (n,) |F| / volume in 1/Å², absent reflections left out."""
        return _reflections(self, 2.2)


@functools.cache
def everything() -> tuple[Structure, ...]:
    """Return all structures, in the order of the table."""
    return tuple(_read(line) for line in _TABLE.strip().splitlines())


def prepare() -> None:
    """Compute all tables now, so that processes that are forked later have them."""
    for structure in everything():
        _ = structure.table


def of_share(share: str) -> list[Structure]:
    """Return the structures of one part of the data: "train", "validate" or "test"."""
    return [s for s in everything() if s.share == share]


def cell_constants(numbers: list[float]) -> tuple[float, ...]:
    """Return a, b, c, α, β, γ from what the table states (`_read` sets γ of hexagonal axes)."""
    if len(numbers) == 1:
        return (numbers[0],) * 3 + (90.0, 90.0, 90.0)
    if len(numbers) == 2:
        return (numbers[0], numbers[0], numbers[1], 90.0, 90.0, 90.0)
    return (*numbers, 90.0, 90.0, 90.0) if len(numbers) == 3 else tuple(numbers)


def _read(line: str) -> Structure:
    name, share, group, *rest = line.split()
    first = next(i for i, word in enumerate(rest) if word in _SYMBOLS)
    a, b, c, alpha, beta, gamma = cell_constants([float(word) for word in rest[:first]])
    if 143 <= int(group) <= 194:
        gamma = 120.0
    operations = _group(int(group))
    symbols, positions = [], []
    for site in " ".join(rest[first:]).split(";"):
        symbol, *place = site.split()
        orbit = _orbit(operations, np.array(place, float))
        symbols += [symbol] * len(orbit)
        positions.append(orbit)
    lattice = _lattice(a, b, c, alpha, beta, gamma)
    return Structure(name, share, int(group), lattice, tuple(symbols), np.concatenate(positions))


def _lattice(a, b, c, alpha, beta, gamma) -> np.ndarray:
    ca, cb, cg = np.cos(np.deg2rad([alpha, beta, gamma]))
    sg = np.sin(np.deg2rad(gamma))
    cy = (ca - cb * cg) / sg
    return np.array([[a, 0, 0], [b * cg, b * sg, 0], [c * cb, c * cy, c * np.sqrt(1 - cb**2 - cy**2)]])


def _operation(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and translation of "−y,x−y,z+2/3"."""
    matrix, shift = np.zeros((3, 3), int), np.zeros(3)
    for i, part in enumerate(text.split(",")):
        for term in part.replace("-", "+-").split("+"):
            sign, body = (-1, term[1:]) if term.startswith("-") else (1, term)
            if body in ("x", "y", "z"):
                matrix[i, "xyz".index(body)] += sign
            elif body:
                top, bottom = body.split("/")
                shift[i] += sign * int(top) / int(bottom)
    return matrix, shift


@functools.cache
def _group(number: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """All operations of a space group, modulo lattice translations, by multiplying its generators."""
    generators = [_operation(text) for text in _GENERATORS[number].split()]
    found = {}
    waiting = [(np.eye(3, dtype=int), np.zeros(3))]
    while waiting:
        matrix, shift = waiting.pop()
        key = (matrix.tobytes(), tuple(np.round(shift * 24).astype(int) % 24))
        if key not in found:
            found[key] = (matrix, shift)
            waiting += [(matrix @ m, (matrix @ t + shift) % 1) for m, t in generators]
    return tuple(found.values())


def _orbit(operations, place) -> np.ndarray:
    """Distinct images of a position, fractional, in [0, 1)."""
    images = []
    for matrix, shift in operations:
        image = (matrix @ place + shift) % 1
        if not any(np.abs((image - other + 0.5) % 1 - 0.5).max() < 2e-3 for other in images):
            images.append(image)
    return np.array(images)


def _reflections(structure: Structure, g_max: float) -> tuple[np.ndarray, np.ndarray]:
    reciprocal = np.linalg.inv(structure.lattice).T
    limit = np.floor(g_max * np.linalg.norm(structure.lattice, axis=1)).astype(int)
    hkl = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in limit), indexing="ij"), -1).reshape(-1, 3)
    g = hkl @ reciprocal
    g2 = (g**2).sum(axis=1)
    keep = (g2 <= g_max**2) & (g2 > 0)
    hkl, g, g2 = hkl[keep], g[keep], g2[keep]
    total = np.zeros(len(hkl), complex)
    for symbol in sorted(set(structure.symbols)):
        number = _SYMBOLS.index(symbol) + 1
        radius = BOHR_ANGSTROM * number ** (-1 / 3)
        amplitude = 2 * number * radius**2 / BOHR_ANGSTROM / (1 + (2 * np.pi * radius) ** 2 * g2)
        places = structure.positions[[s == symbol for s in structure.symbols]]
        total += amplitude * np.exp(2j * np.pi * hkl @ places.T).sum(axis=1)
    strength = np.abs(total) * np.exp(-2 * np.pi**2 * MEAN_SQUARE_ANGSTROM2 * g2)
    strength /= abs(np.linalg.det(structure.lattice))
    seen = strength > 1e-3 * strength.max()
    return np.ascontiguousarray(g[seen]), np.ascontiguousarray(strength[seen])
