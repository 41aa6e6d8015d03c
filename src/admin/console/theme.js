/** Light, dark, or as the system has it; remembered on this machine. */

const key = "authbridge-theme";
const themes = /** @type {const} */ (["system", "light", "dark"]);

/** @param {string} theme */
function apply(theme) {
  if (theme === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme;
}

/**
 * Gives the button its work.
 *
 * @param {HTMLElement} button
 */
export function startTheme(button) {
  let theme = localStorage.getItem(key) ?? "system";
  apply(theme);
  button.addEventListener("click", () => {
    const at = themes.findIndex((one) => one === theme);
    theme = themes[(at + 1) % themes.length] ?? "system";
    localStorage.setItem(key, theme);
    apply(theme);
    button.textContent = theme === "system" ? "Theme" : theme;
  });
}
