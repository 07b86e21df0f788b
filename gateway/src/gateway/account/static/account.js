// Reads a mail's token from the fragment, which no server ever sees, and hands the form to the API.
const form = document.querySelector("form");
const status = document.querySelector("[role=status]");
const { token, password, repeat } = form.elements;
const code = token.parentElement;

begin();
addEventListener("hashchange", begin); // another mail's link in the same tab loads nothing anew

function begin() {
  form.reset();
  unmark();
  token.value = location.hash.slice(1);
  history.replaceState(null, "", location.pathname); // the token stays neither in the address bar nor in the history
  code.hidden = token.value !== "";
  form.hidden = false;
  say("note", code.hidden ? "" : "The link’s code is missing. Please open the link in the mail again, or enter its code.");
  (code.hidden ? form.querySelector("input:not(#token), button") : token).focus();
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (form.ariaBusy === "true") return; // a disabled button would take the focus away instead
  unmark();
  token.value = token.value.trim();
  if (repeat && repeat.value !== password.value) return mark([{ field: "repeat", message: "The passwords differ." }]);
  form.ariaBusy = "true";
  await send(Object.fromEntries(new FormData(form)));
  form.ariaBusy = "false";
});

async function send(body) {
  try {
    const answer = await fetch(form.dataset.api, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    if (answer.ok) return end("done", form.dataset.done);
    const { type, detail, errors = [] } = await answer.json();
    const isTokenWrong = type === "/errors/token-not-valid" || errors.some(({ field }) => field === "token");
    if (isTokenWrong && code.hidden) return end("problem", form.dataset.spent);
    if (isTokenWrong) return mark([{ field: "token", message: "This code is wrong, was used already, or is too old." }]);
    errors.length ? mark(errors) : say("problem", detail);
  } catch {
    say("problem", "That did not work just now. Please try again.");
  }
}

function end(kind, message) {
  form.reset();
  form.hidden = true;
  say(kind, message);
}

function say(kind, message) {
  status.className = kind;
  status.textContent = message;
}

function mark(faults) {
  for (const { field, message } of faults) {
    const note = document.createElement("p");
    note.id = `${field}-fault`;
    note.className = "fault";
    note.textContent = message;
    form.elements[field].after(note);
    form.elements[field].setAttribute("aria-invalid", "true");
    form.elements[field].setAttribute("aria-describedby", note.id);
  }
  say("problem", "Please correct what is marked.");
  form.elements[faults[0].field].focus();
}

function unmark() {
  say("", "");
  for (const note of form.querySelectorAll(".fault")) note.remove();
  for (const field of form.elements) {
    field.removeAttribute("aria-invalid");
    field.removeAttribute("aria-describedby");
  }
}
