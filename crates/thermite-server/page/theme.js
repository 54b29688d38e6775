// Runs before the first paint, so that a chosen theme does not flash in after the other one.
try {
  const theme = localStorage.getItem("thermite.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // storage is closed to this page: the system's theme it is
}
