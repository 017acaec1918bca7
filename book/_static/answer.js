// An exercise whose answer is one number: right, or the mistake that gives this number.
const number = (text) => {
  const [top, bottom = "1", ...more] = text.trim().replace(/[−–]/g, "-").replace(",", ".").split("/");
  const value = Number(top || NaN) / Number(bottom || NaN);
  return more.length ? NaN : value;
};
const near = (a, b) => Math.abs(a - b) <= 1e-3 * Math.max(Math.abs(b), 1e-9);

for (const form of document.querySelectorAll("form.answer")) {
  const known = JSON.parse(form.dataset.known);
  const said = form.querySelector("output");
  form.hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = number(form.querySelector("input").value);
    const found = known.find(([value]) => near(given, value));
    if (!Number.isFinite(given)) said.value = "Write a number, such as 0.75 or 3/4.";
    else if (found === known[0]) said.value = "Right.";
    else if (found) said.value = `Not yet: ${found[1]}`;
    else if (near(given, -known[0][0])) said.value = "Not yet: the sign is the wrong one.";
    else said.value = "Not yet. It is none of the mistakes that are known here.";
  });
}
