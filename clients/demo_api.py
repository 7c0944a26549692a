"""A small API on loopback, for the example of `syncs init`: the chemical elements, listed by pages and read one by one."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from clients.http.client import HttpClient

_TEXT = """
H Hydrogen He Helium Li Lithium Be Beryllium B Boron C Carbon N Nitrogen O Oxygen F Fluorine Ne Neon Na Sodium Mg Magnesium
Al Aluminium Si Silicon P Phosphorus S Sulfur Cl Chlorine Ar Argon K Potassium Ca Calcium Sc Scandium Ti Titanium V Vanadium
Cr Chromium Mn Manganese Fe Iron Co Cobalt Ni Nickel Cu Copper Zn Zinc Ga Gallium Ge Germanium As Arsenic Se Selenium Br Bromine
Kr Krypton Rb Rubidium Sr Strontium Y Yttrium Zr Zirconium Nb Niobium Mo Molybdenum Tc Technetium Ru Ruthenium Rh Rhodium
Pd Palladium Ag Silver Cd Cadmium In Indium Sn Tin Sb Antimony Te Tellurium I Iodine Xe Xenon Cs Caesium Ba Barium La Lanthanum
Ce Cerium Pr Praseodymium Nd Neodymium Pm Promethium Sm Samarium Eu Europium Gd Gadolinium Tb Terbium Dy Dysprosium Ho Holmium
Er Erbium Tm Thulium Yb Ytterbium Lu Lutetium Hf Hafnium Ta Tantalum W Tungsten Re Rhenium Os Osmium Ir Iridium Pt Platinum
Au Gold Hg Mercury Tl Thallium Pb Lead Bi Bismuth Po Polonium At Astatine Rn Radon Fr Francium Ra Radium Ac Actinium Th Thorium
Pa Protactinium U Uranium Np Neptunium Pu Plutonium Am Americium Cm Curium Bk Berkelium Cf Californium Es Einsteinium Fm Fermium
Md Mendelevium No Nobelium Lr Lawrencium Rf Rutherfordium Db Dubnium Sg Seaborgium Bh Bohrium Hs Hassium Mt Meitnerium
Ds Darmstadtium Rg Roentgenium Cn Copernicium Nh Nihonium Fl Flerovium Mc Moscovium Lv Livermorium Ts Tennessine Og Oganesson
"""
_NAMES = _TEXT.split()
#: When the last of them got their names.
_UPDATED = "2016-11-28T00:00:00Z"
_ELEMENTS = [
    {"symbol": symbol, "number": number, "name": name, "updated_at": _UPDATED}
    for number, (symbol, name) in enumerate(zip(_NAMES[::2], _NAMES[1::2], strict=True), start=1)
]


@contextmanager
def elements_api() -> Iterator[HttpClient]:
    """Serve the API in this process and yield an adapter for it.

    `GET elements?page=1&per_page=50` lists symbols and when they changed, `GET elements/Fe` is one element.
    """
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="demo-api", daemon=True)
        thread.start()
        try:
            with HttpClient(f"http://127.0.0.1:{server.server_address[1]}/") as http:
                yield http
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body in one packet; each in its own would wait for the other side's acknowledgement.
    wbufsize = -1

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        found = _answer(parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()})
        body = json.dumps({"error": "not found"} if found is None else found).encode()
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        return None


def _answer(path: str, query: dict[str, str]) -> dict[str, Any] | None:
    if path == "/elements":
        try:
            page, size = int(query.get("page", "1")), min(100, int(query.get("per_page", "50")))
        except ValueError:
            return None
        shown = _ELEMENTS[(page - 1) * size : page * size] if page > 0 and size > 0 else []
        rows = [{"symbol": each["symbol"], "updated_at": each["updated_at"]} for each in shown]
        return {"data": rows, "total": len(_ELEMENTS)}
    return next((each for each in _ELEMENTS if path == f"/elements/{each['symbol']}"), None)
