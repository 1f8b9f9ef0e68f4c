// The theme that was chosen here, before anything is drawn: modules run later, and the page would flash.
// storage.js writes it, colours.js lets it be chosen.
try {
  const theme = JSON.parse(localStorage.getItem('tickerd.theme'));
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch {
  // Nothing may be kept here, or it is not ours: as the system has it.
}
