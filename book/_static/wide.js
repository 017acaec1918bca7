// A formula that was broken for a phone stands in one line where there is room for it.
const wide = matchMedia("(min-width: 768px)");
const broken = new Map();
for (const place of document.querySelectorAll("div.math")) {
  const narrow = place.lastChild?.data ?? "";
  const joined = narrow
    .replace(/\\\\(\[[^\]]*\])?\s*&\s*(\\quad\s*|(?=[-+]))/g, " ")
    .replace(/=\s*\\\\\s*(?!&)/g, "= ");
  if (joined !== narrow) broken.set(place, { narrow, joined });
}

function write(place, text) {
  window.MathJax.typesetClear?.([place]);
  place.lastChild.replaceWith(text);
}

async function keepWhatFits() {
  const long = [...broken.keys()].filter((place) => {
    const used = [...place.children].map((part) => (part.querySelector("mjx-math") ?? part).getBoundingClientRect().width);
    return wide.matches && used.reduce((a, b) => a + b) > place.clientWidth;
  });
  for (const place of long) write(place, broken.get(place).narrow);
  if (long.length) await MathJax.typesetPromise(long);
}

function writeAll() {
  for (const [place, text] of broken) write(place, wide.matches ? text.joined : text.narrow);
}

if (broken.size) {
  if (wide.matches) writeAll();
  addEventListener("load", () => {
    window.formulasFit = MathJax.startup.promise.then(keepWhatFits);
  });
  wide.addEventListener("change", () => {
    writeAll();
    window.formulasFit = MathJax.typesetPromise([...broken.keys()]).then(keepWhatFits);
  });
}
