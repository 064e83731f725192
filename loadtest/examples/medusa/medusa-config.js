const { defineConfig } = require("@medusajs/framework/utils");

// Medusa's own default is a lock in the memory of each process.
const locking = {
  resolve: "@medusajs/medusa/locking",
  options: {
    providers: [{ resolve: "@medusajs/medusa/locking-postgres", id: "locking-postgres", is_default: true }],
  },
};

module.exports = defineConfig({
  projectConfig: {
    databaseUrl: process.env.DATABASE_URL,
    // Required; the shop lives for one test, on this machine.
    http: { storeCors: "", adminCors: "", authCors: "", jwtSecret: "example", cookieSecret: "example" },
  },
  admin: { disable: true },
  modules: process.env.LOCKING === "postgres" ? [locking] : [],
});
