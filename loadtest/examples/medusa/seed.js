// The least that a shop needs to sell: one product on one shelf, and a way to pay and to ship.
const { ContainerRegistrationKeys, Modules } = require("@medusajs/framework/utils");
const flows = require("@medusajs/medusa/core-flows");

exports.default = async ({ container }) => {
  const run = async (workflow, input) => (await workflow(container).run({ input })).result;
  const link = container.resolve(ContainerRegistrationKeys.LINK);
  const fulfillment = container.resolve(Modules.FULFILLMENT);

  // Medusa makes a sales channel, and a publishable key for it, by itself.
  const [channel] = await container.resolve(Modules.SALES_CHANNEL).listSalesChannels();
  await run(flows.createRegionsWorkflow, {
    regions: [
      { name: "Germany", currency_code: "eur", countries: ["de"], payment_providers: ["pp_system_default"] },
    ],
  });

  const [location] = await run(flows.createStockLocationsWorkflow, { locations: [{ name: "Warehouse" }] });
  await run(flows.linkSalesChannelsToStockLocationWorkflow, { id: location.id, add: [channel.id] });

  const set = await fulfillment.createFulfillmentSets({
    name: "Delivery",
    type: "shipping",
    service_zones: [{ name: "Germany", geo_zones: [{ type: "country", country_code: "de" }] }],
  });
  const at_location = { [Modules.STOCK_LOCATION]: { stock_location_id: location.id } };
  await link.create([
    { ...at_location, [Modules.FULFILLMENT]: { fulfillment_set_id: set.id } },
    { ...at_location, [Modules.FULFILLMENT]: { fulfillment_provider_id: "manual_manual" } },
  ]);
  const [profile] = await run(flows.createShippingProfilesWorkflow, {
    data: [{ name: "Parcels", type: "default" }],
  });
  await run(flows.createShippingOptionsWorkflow, [
    {
      name: "Parcel",
      price_type: "flat",
      provider_id: "manual_manual",
      service_zone_id: set.service_zones[0].id,
      shipping_profile_id: profile.id,
      type: { label: "Parcel", description: "Parcel", code: "parcel" },
      prices: [{ currency_code: "eur", amount: 5 }],
    },
  ]);

  await run(flows.createProductsWorkflow, {
    products: [
      {
        title: "Hair dryer",
        status: "published",
        shipping_profile_id: profile.id,
        sales_channels: [{ id: channel.id }],
        options: [{ title: "Colour", values: ["red"] }],
        variants: [
          {
            title: "Red",
            sku: "hair-dryer",
            options: { Colour: "red" },
            prices: [{ currency_code: "eur", amount: 20 }],
          },
        ],
      },
    ],
  });
  const [item] = await container.resolve(Modules.INVENTORY).listInventoryItems({ sku: "hair-dryer" });
  await run(flows.createInventoryLevelsWorkflow, {
    inventory_levels: [{ inventory_item_id: item.id, location_id: location.id, stocked_quantity: 0 }],
  });
};
