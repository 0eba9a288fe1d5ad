// Puts the program and the one module it needs into dist/.
const fs = require("fs");

fs.mkdirSync("dist/node_modules", { recursive: true });
fs.copyFileSync("src/main.js", "dist/main.js");
fs.cpSync("node_modules/is-number", "dist/node_modules/is-number", { recursive: true });
