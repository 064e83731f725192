"""One product to buy. What is in stock is set by the load test, before each run."""

import django

django.setup()

from oscar.apps.catalogue.categories import create_from_breadcrumbs  # noqa: E402
from oscar.core.loading import get_model  # noqa: E402

Country = get_model("address", "Country")
Partner = get_model("partner", "Partner")
Product = get_model("catalogue", "Product")
ProductCategory = get_model("catalogue", "ProductCategory")
ProductClass = get_model("catalogue", "ProductClass")
StockRecord = get_model("partner", "StockRecord")

# With a single country there is none to choose. Shipping is free by oscar's default.
Country.objects.create(
    iso_3166_1_a2="GB", iso_3166_1_a3="GBR", printable_name="United Kingdom", is_shipping_country=True
)
tools = ProductClass.objects.create(name="Tools", track_stock=True, requires_shipping=True)
# The id and the slug are in the product's address.
dryer = Product.objects.create(id=1, title="Hair dryer", slug="hair-dryer", product_class=tools)
ProductCategory.objects.create(product=dryer, category=create_from_breadcrumbs("Everything"))
partner = Partner.objects.create(name="Warehouse")
StockRecord.objects.create(
    product=dryer, partner=partner, partner_sku="dryer", price=25, num_in_stock=0, num_allocated=0
)
