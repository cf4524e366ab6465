from django import template

from ledger import money

register = template.Library()
register.filter("dml", money.dml)
register.filter("coin", money.coin)
