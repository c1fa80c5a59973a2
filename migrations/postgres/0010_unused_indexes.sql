-- Indexes that no statement uses: every transfer and every order's account paid for them.

drop index transfer_credit;
drop index account_asset;
