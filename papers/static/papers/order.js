// Puts the papers of an edition in order, by dragging ≡ or with its arrow keys. It only fills in the
// numbers that could be typed as well; "Save" saves them.
const help = document.getElementById("order");
const list = document.querySelector("#result_list tbody");

const place = (row) => row.querySelector("input.place");
const curation = (row) => row.querySelector("select[name$='-curation']")?.value;
// The page shows the pinned first, whatever their numbers: a row stays among its like.
const alike = (row, other) => other && place(other) && curation(row) === curation(other);

// The other row passes: the one that is dragged stays in the document, with its focus.
function up(row) {
  const other = row.previousElementSibling;
  if (!alike(row, other)) return false;
  row.after(other);
  return true;
}

function down(row) {
  const other = row.nextElementSibling;
  if (!alike(row, other)) return false;
  row.before(other);
  return true;
}

// Those without a number come after all that have one, so all above the moved row need theirs.
function number(row) {
  const rows = [...list.rows].filter((one) => place(one) && curation(one) !== "hidden");
  const last = rows.findLastIndex((one) => one === row || place(one).value !== "");
  rows.slice(0, last + 1).forEach((one, index) => {
    place(one).value = index + 1;
  });
  const said = document.getElementById("order-said");
  said.textContent = `Place ${rows.indexOf(row) + 1} of ${rows.length}. Not saved yet.`;
}

function drag(start, row) {
  if (start.button) return;
  let moved = false;
  const move = (event) => {
    const middle = (other) => {
      const box = other.getBoundingClientRect();
      return box.top + box.height / 2;
    };
    let step = true;
    while (step) {
      const [above, below] = [row.previousElementSibling, row.nextElementSibling];
      step =
        (above && event.clientY < middle(above) && up(row)) ||
        (below && event.clientY > middle(below) && down(row));
      moved ||= step;
    }
    row.scrollIntoView({ block: "nearest" });
  };
  const end = () => {
    document.removeEventListener("pointermove", move);
    row.classList.remove("dragged");
    if (moved) number(row);
  };
  row.classList.add("dragged");
  document.addEventListener("pointermove", move);
  document.addEventListener("pointerup", end, { once: true });
  document.addEventListener("pointercancel", end, { once: true });
}

if (help && list) {
  for (const row of list.rows) {
    if (!place(row) || curation(row) === "hidden") continue;
    const handle = document.createElement("button");
    handle.type = "button";
    handle.className = "handle";
    handle.textContent = "≡";
    const title = row.querySelector(".field-paper_title > a")?.textContent;
    handle.setAttribute("aria-label", `Move “${title}” with the arrow keys`);
    handle.addEventListener("pointerdown", (event) => drag(event, row));
    handle.addEventListener("keydown", (event) => {
      const step = { ArrowUp: up, ArrowDown: down }[event.key];
      if (!step) return;
      event.preventDefault();
      if (!step(row)) return;
      number(row);
      row.scrollIntoView({ block: "nearest" });
    });
    place(row).before(handle);
  }
  help.hidden = false;
}
