module.exports = require("zeromq/v5-compat");
