// An exercise whose answer is a few numbers: right, or the mistake that gives these.
const number = (text) => {
  const [top, bottom = "1", ...more] = text.trim().replace(/[−–]/g, "-").replace(",", ".").split("/");
  const value = Number(top || NaN) / Number(bottom || NaN);
  return more.length ? NaN : value;
};
const numbers = (text) => text.trim().split(/[\s;]+/).map(number);
const near = (a, b) => a.length === b.length
  && Math.hypot(...a.map((x, i) => x - b[i])) <= 1e-3 * Math.max(Math.hypot(...b), 1e-9);

for (const form of document.querySelectorAll("form.answer")) {
  const known = JSON.parse(form.dataset.known);
  const said = form.querySelector("output");
  form.hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = numbers(form.querySelector("input").value);
    const right = known[0][0];
    const [many, example] = right.length > 1 ? [`${right.length} numbers`, "0.75 3/4"] : ["a number", "0.75 or 3/4"];
    const found = known.find(([value]) => near(given, value));
    if (given.length !== right.length || !given.every(Number.isFinite)) said.value = `Write ${many}, such as ${example}.`;
    else if (found === known[0]) said.value = "Right.";
    else if (found) said.value = `Not yet: ${found[1]}`;
    else if (near(given, right.map((x) => -x))) said.value = "Not yet: the sign is the wrong one.";
    else said.value = "Not yet. It is none of the mistakes that are known here.";
  });
}
