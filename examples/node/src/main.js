const isNumber = require("is-number");

exports.describe = (value) => (isNumber(value) ? `${value} is a number` : `${value} is text`);

if (require.main === module) {
  console.log(exports.describe(process.argv[2] || "42"));
}
