// Makes the database of DATABASE_URL afresh, with Vendure's schema and all that a purchase needs: a country
// with its tax and shipping, a way to pay, and one product whose stock is tracked.

const { Client } = require('pg');
const {
    bootstrap,
    ChannelService,
    LanguageCode,
    Populator,
    ProductService,
    ProductVariantService,
    RequestContextService,
    TaxCategoryService,
} = require('@vendure/core');
const { config } = require('./config');

const languageCode = LanguageCode.en;

const initialData = {
    defaultLanguage: languageCode,
    defaultZone: 'Europe',
    countries: [{ code: 'DE', name: 'Germany', zone: 'Europe' }],
    taxRates: [{ name: 'Standard', percentage: 19 }],
    shippingMethods: [{ name: 'Parcel', price: 500 }],
    paymentMethods: [
        {
            name: 'Dummy',
            handler: {
                code: 'dummy-payment-handler',
                arguments: [{ name: 'automaticSettle', value: 'true' }],
            },
        },
    ],
    collections: [],
};

async function freshDatabase() {
    const url = new URL(process.env.DATABASE_URL);
    const name = `"${url.pathname.slice(1)}"`;
    url.pathname = '/postgres';
    const client = new Client({ connectionString: url.toString() });
    await client.connect();
    await client.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
    await client.query(`CREATE DATABASE ${name}`);
    await client.end();
}

async function seed() {
    await freshDatabase();
    const app = await bootstrap({
        ...config,
        dbConnectionOptions: { ...config.dbConnectionOptions, synchronize: true },
    });
    await app.get(Populator).populateInitialData(initialData);
    const channel = await app.get(ChannelService).getDefaultChannel();
    const context = await app
        .get(RequestContextService)
        .create({ apiType: 'admin', languageCode, channelOrToken: channel });
    const categories = await app.get(TaxCategoryService).findAll(context);
    const product = await app.get(ProductService).create(context, {
        enabled: true,
        translations: [{ languageCode, name: 'Hair dryer', slug: 'hair-dryer', description: '' }],
    });
    await app.get(ProductVariantService).create(context, [
        {
            productId: product.id,
            sku: 'DRYER',
            price: 2999,
            taxCategoryId: categories.items[0].id,
            trackInventory: 'TRUE',
            // The load test puts the real number there.
            stockOnHand: 1,
            translations: [{ languageCode, name: 'Hair dryer' }],
        },
    ]);
    await app.close();
}

seed().then(
    // What is still open must not keep the process alive.
    () => process.exit(0),
    error => {
        console.error(error);
        process.exit(1);
    },
);
