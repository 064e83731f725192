// How this shop differs from Vendure's defaults: as little as possible, since these are what is tested.
//
// DATABASE_URL names its database, PORT the port it listens on (absent: any that is free).

const { DefaultLogger, LogLevel, dummyPaymentHandler } = require('@vendure/core');

exports.config = {
    apiOptions: { hostname: '127.0.0.1', port: Number(process.env.PORT || 0) },
    // A headless shop's buyers keep their session's token themselves: the header `vendure-auth-token`.
    authOptions: {
        tokenMethod: 'bearer',
        // In production Vendure refuses to start with its default password. Nobody uses this one.
        superadminCredentials: { identifier: 'superadmin', password: process.env.SUPERADMIN_PASSWORD },
    },
    // The schema is made by seed.js, once, before the processes of the shop start.
    dbConnectionOptions: { type: 'postgres', url: process.env.DATABASE_URL, synchronize: false },
    paymentOptions: { paymentMethodHandlers: [dummyPaymentHandler] },
    logger: new DefaultLogger({ level: LogLevel.Warn }),
};
