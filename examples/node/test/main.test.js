const assert = require("assert");
const { describe } = require("../src/main.js");

assert.strictEqual(describe("7"), "7 is a number");
assert.strictEqual(describe("seven"), "seven is text");
console.log("2 tests passed");
