// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IERC1363Receiver} from "@openzeppelin/contracts/interfaces/IERC1363Receiver.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {DMLEscrow} from "../DMLEscrow.sol";
import {DMLToken} from "../DMLToken.sol";
import {Base} from "./Base.sol";

/// @dev Quotes, settlement, refund.
contract PaymentTest is Base {
    address private constant P1 = address(0x1001);
    address private constant P2 = address(0x1002);
    bytes32 private constant ROOT = keccak256("receipts");

    function setUp() public override {
        super.setUp();
        join(P1);
        join(P2);
    }

    // --- paying

    function test_transferAndCall_pays_in_one_transaction() public {
        payTicket(1, 130_000);
        eq(uint256(stateOf(1)), uint256(DMLEscrow.TicketState.Paid), "state");
        eq(escrow.escrowed(), 130_000, "escrowed");
        eq(token.balanceOf(address(escrow)), 130_000, "balance");
    }

    function test_pay_with_allowance_and_with_permit() public {
        DMLEscrow.Quote memory quote = quoted(1, 5e6);
        bytes memory signature = signed(quote, QUOTER_KEY);
        vm.startPrank(customer);
        token.approve(address(escrow), 5e6);
        escrow.pay(quote, signature);
        vm.stopPrank();
        quote = quoted(2, 6e6);
        signature = signed(quote, QUOTER_KEY);
        (uint8 v, bytes32 r, bytes32 s) = permit(6e6);
        vm.prank(customer);
        escrow.payWithPermit(quote, signature, block.timestamp, v, r, s);
        eq(escrow.escrowed(), 11e6, "escrowed");
    }

    function test_a_permit_used_by_somebody_else_first_does_not_stop_the_payment() public {
        DMLEscrow.Quote memory quote = quoted(2, 6e6);
        bytes memory signature = signed(quote, QUOTER_KEY);
        (uint8 v, bytes32 r, bytes32 s) = permit(6e6);
        vm.prank(address(0xBAD));
        token.permit(customer, address(escrow), 6e6, block.timestamp, v, r, s);
        vm.prank(customer);
        escrow.payWithPermit(quote, signature, block.timestamp, v, r, s);
        eq(escrow.escrowed(), 6e6, "escrowed");
    }

    function permit(uint256 amount) private view returns (uint8 v, bytes32 r, bytes32 s) {
        bytes32 kind = keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
        bytes32 inner = keccak256(abi.encode(kind, customer, address(escrow), amount, token.nonces(customer), block.timestamp));
        return vm.sign(CUSTOMER_KEY, keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), inner)));
    }

    function refused(DMLEscrow.Quote memory quote, uint256 value, uint256 key, address sender, bytes4 why) private {
        bytes memory data = abi.encode(quote, signed(quote, key));
        if (sender != customer) {
            vm.prank(admin);
            token.transfer(sender, value);
        }
        uint256 before = token.balanceOf(sender);
        vm.prank(sender);
        vm.expectPartialRevert(why);
        token.transferAndCall(address(escrow), value, data);
        eq(token.balanceOf(sender), before, "nothing moved");
        eq(escrow.escrowed(), 0, "nothing booked");
    }

    function testFuzz_any_other_amount_is_refused(uint256 value) public {
        value = bound(value, 0, 100_000e6);
        vm.assume(value != 5e6);
        refused(quoted(1, 5e6), value, QUOTER_KEY, customer, DMLEscrow.WrongAmount.selector);
    }

    function test_zero_is_refused() public {
        refused(quoted(1, 0), 0, QUOTER_KEY, customer, DMLEscrow.QuoteOutOfRange.selector);
    }

    function test_somebody_elses_quote_is_refused() public {
        refused(quoted(1, 5e6), 5e6, QUOTER_KEY, address(0xBAD), DMLEscrow.WrongPayer.selector);
    }

    function testFuzz_a_forged_quote_is_refused(uint256 key) public {
        key = bound(key, 1, type(uint128).max);
        vm.assume(key != QUOTER_KEY);
        refused(quoted(1, 5e6), 5e6, key, customer, DMLEscrow.QuoteForged.selector);
    }

    function test_a_late_quote_is_refused() public {
        DMLEscrow.Quote memory quote = quoted(1, 5e6);
        vm.warp(quote.payBy + 1);
        refused(quote, 5e6, QUOTER_KEY, customer, DMLEscrow.QuoteLate.selector);
    }

    function test_a_quote_out_of_range_is_refused() public {
        DMLEscrow.Quote memory quote = quoted(1, 5e6);
        quote.settleBy = quote.payBy;
        refused(quote, 5e6, QUOTER_KEY, customer, DMLEscrow.QuoteOutOfRange.selector);
        quote.settleBy = uint64(type(uint32).max) + 1;
        refused(quote, 5e6, QUOTER_KEY, customer, DMLEscrow.QuoteOutOfRange.selector);
    }

    function test_a_changed_quote_is_refused() public {
        DMLEscrow.Quote memory quote = quoted(1, 5e6);
        bytes memory signature = signed(quote, QUOTER_KEY);
        quote.amount = 1;
        vm.prank(customer);
        vm.expectPartialRevert(DMLEscrow.QuoteForged.selector);
        token.transferAndCall(address(escrow), 1, abi.encode(quote, signature));
    }

    function test_a_quote_for_another_escrow_is_refused() public {
        DMLEscrow other = new DMLEscrow(terms());
        DMLEscrow.Quote memory quote = quoted(1, 5e6);
        bytes memory data = abi.encode(quote, signed(quote, QUOTER_KEY));
        vm.prank(customer);
        vm.expectPartialRevert(DMLEscrow.QuoteForged.selector);
        token.transferAndCall(address(other), 5e6, data);
    }

    function test_a_quote_is_good_once_whatever_became_of_the_ticket() public {
        DMLEscrow.Quote memory quote = quoted(1, 5e6);
        bytes memory data = abi.encode(quote, signed(quote, QUOTER_KEY));
        vm.prank(customer);
        token.transferAndCall(address(escrow), 5e6, data);
        vm.prank(settler);
        escrow.refund(1);
        vm.prank(customer);
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.WrongTicketState.selector, 1, DMLEscrow.TicketState.Refunded));
        token.transferAndCall(address(escrow), 5e6, data);
    }

    function test_only_the_token_may_announce_a_payment() public {
        DMLEscrow.Quote memory quote = quoted(1, 5e6);
        bytes memory data = abi.encode(quote, signed(quote, QUOTER_KEY));
        DMLToken fake = new DMLToken(customer, 5e6);
        vm.prank(customer);
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.NotToken.selector, address(fake)));
        fake.transferAndCall(address(escrow), 5e6, data);
        vm.prank(customer);
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.NotToken.selector, customer));
        escrow.onTransferReceived(customer, customer, 5e6, data);
    }

    function test_a_direct_transfer_pays_for_nothing_and_can_be_sent_back() public {
        payTicket(1, 5e6);
        vm.prank(customer);
        token.transfer(address(escrow), 7e6);
        eq(escrow.escrowed(), 5e6, "escrowed");
        vm.startPrank(admin);
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.BeyondSurplus.selector, 7e6 + 1, 7e6));
        escrow.moveSurplus(customer, 7e6 + 1);
        escrow.moveSurplus(customer, 7e6);
        vm.stopPrank();
        eq(token.balanceOf(address(escrow)), 5e6, "what is owed stays");
    }

    // --- settling

    function test_settle_pays_shares_and_fee() public {
        payTicket(1, 130_000);
        settle(1, list(P1, P2), sums(100_000, 27_400));
        eq(token.balanceOf(P1), 100_000, "P1");
        eq(token.balanceOf(P2), 27_400, "P2");
        eq(token.balanceOf(treasury), 2_600, "fee");
        eq(escrow.escrowed(), 0, "escrowed");
        eq(token.balanceOf(address(escrow)), 0, "escrow");
    }

    function settle(uint256 ticketId, address[] memory accounts, uint256[] memory amounts) private {
        vm.prank(settler);
        escrow.settle(ticketId, accounts, amounts, ROOT);
    }

    function testFuzz_shares_and_fee_make_the_amount(uint256 amount, uint256 first, uint256 second) public {
        amount = bound(amount, 1, 100_000e6);
        first = bound(first, 0, amount);
        second = bound(second, 0, amount - first);
        payTicket(1, amount);
        uint256 fee = amount - first - second;
        bool dear = fee > amount * 200 / 10_000;
        if (dear) vm.expectPartialRevert(DMLEscrow.FeeTooHigh.selector);
        settle(1, list(P1, P2), sums(first, second));
        eq(token.balanceOf(P1) + token.balanceOf(P2) + token.balanceOf(treasury), dear ? 0 : amount, "all of it");
        eq(token.balanceOf(address(escrow)), dear ? amount : 0, "the rest");
    }

    function test_settle_once() public {
        payTicket(1, 100);
        payTicket(2, 100);
        settle(1, list(P1), sums(98));
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.WrongTicketState.selector, 1, DMLEscrow.TicketState.Settled));
        settle(1, list(P1), sums(98));
        vm.prank(settler);
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.WrongTicketState.selector, 1, DMLEscrow.TicketState.Settled));
        escrow.refund(1);
        eq(token.balanceOf(address(escrow)), 100, "the other ticket's");
    }

    function test_settle_refuses_doubles_disorder_strangers_and_too_much() public {
        payTicket(1, 100);
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.NotAscending.selector, P1));
        settle(1, list(P1, P1), sums(49, 49));
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.NotAscending.selector, P1));
        settle(1, list(P2, P1), sums(49, 49));
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.NotInStanding.selector, address(0xBAD)));
        settle(1, list(address(0xBAD)), sums(98));
        vm.expectPartialRevert(DMLEscrow.LengthsDiffer.selector);
        settle(1, list(P1, P2), sums(98));
        payTicket(2, 100);
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.SharesExceedAmount.selector, 101, 100));
        settle(1, list(P1), sums(101));
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.FeeTooHigh.selector, 100, 2));
        settle(1, list(), new uint256[](0));
    }

    function test_settle_is_for_the_settler() public {
        payTicket(1, 100);
        vm.expectPartialRevert(IAccessControl.AccessControlUnauthorizedAccount.selector);
        escrow.settle(1, list(P1), sums(98), ROOT);
    }

    function test_one_who_is_leaving_is_still_paid() public {
        payTicket(1, 100);
        vm.prank(P1);
        escrow.requestExit();
        settle(1, list(P1), sums(98));
        eq(token.balanceOf(P1), 98, "P1");
    }

    function test_a_recipient_refused_by_the_token_gets_a_credit_and_stops_nobody() public {
        payTicket(1, 100);
        vm.mockCall(address(token), abi.encodeCall(IERC20.transfer, (P1, 50)), abi.encode(false));
        settle(1, list(P1, P2), sums(50, 48));
        vm.clearMockedCalls();
        eq(token.balanceOf(P2), 48, "P2");
        eq(escrow.tokenCredit(P1), 50, "credit");
        eq(escrow.tokenCredits(), 50, "credits");
        vm.prank(P1);
        escrow.withdrawTokenCredit(address(0xF00));
        eq(token.balanceOf(address(0xF00)), 50, "fetched");
        eq(escrow.tokenCredits() + token.balanceOf(address(escrow)), 0, "nothing left");
        vm.prank(P1);
        vm.expectPartialRevert(DMLEscrow.NothingToWithdraw.selector);
        escrow.withdrawTokenCredit(P1);
    }

    // --- refunding

    function testFuzz_at_every_second_settle_or_public_refund_never_both(uint256 later) public {
        payTicket(1, 100);
        vm.warp(START + bound(later, 0, 20 days));
        bool over = block.timestamp >= START + 10 days;
        if (over) {
            vm.expectRevert(abi.encodeWithSelector(DMLEscrow.TooLate.selector, START + 10 days));
            settle(1, list(P1), sums(98));
            vm.prank(address(0xA11));
            escrow.refund(1);
            eq(token.balanceOf(customer), 100_000e6, "whole again");
        } else {
            vm.prank(customer);
            vm.expectRevert(abi.encodeWithSelector(DMLEscrow.TooEarly.selector, START + 10 days));
            escrow.refund(1);
            settle(1, list(P1), sums(98));
        }
    }

    function test_the_cut_is_at_settle_by_to_the_second() public {
        payTicket(1, 100);
        payTicket(2, 100);
        vm.warp(START + 10 days - 1);
        vm.expectPartialRevert(DMLEscrow.TooEarly.selector);
        escrow.refund(1);
        settle(1, list(P1), sums(98));
        vm.warp(START + 10 days);
        vm.expectPartialRevert(DMLEscrow.TooLate.selector);
        settle(2, list(P1), sums(98));
        escrow.refund(2);
    }

    function test_refund_goes_to_the_quoted_payer_even_while_paused() public {
        payTicket(1, 100);
        payTicket(2, 100);
        vm.prank(guardian);
        escrow.pause();
        vm.prank(settler);
        escrow.refund(1);
        vm.warp(START + 10 days);
        vm.prank(address(0xA11));
        escrow.refund(2);
        eq(token.balanceOf(customer), 100_000e6, "whole again");
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.WrongTicketState.selector, 2, DMLEscrow.TicketState.Refunded));
        escrow.refund(2);
    }

    function test_pause_stops_payment_and_settlement() public {
        payTicket(1, 100);
        DMLEscrow.Quote memory quote = quoted(2, 100);
        bytes memory data = abi.encode(quote, signed(quote, QUOTER_KEY));
        vm.prank(guardian);
        escrow.pause();
        vm.prank(customer);
        vm.expectPartialRevert(Pausable.EnforcedPause.selector);
        token.transferAndCall(address(escrow), 100, data);
        vm.expectPartialRevert(Pausable.EnforcedPause.selector);
        settle(1, list(P1), sums(98));
        vm.prank(guardian);
        vm.expectPartialRevert(IAccessControl.AccessControlUnauthorizedAccount.selector);
        escrow.unpause();
        vm.prank(admin);
        escrow.unpause();
        settle(1, list(P1), sums(98));
    }

    function test_pause_is_for_guardian_and_admin() public {
        vm.prank(settler);
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.NotGuardian.selector, settler));
        escrow.pause();
        vm.prank(admin);
        escrow.pause();
    }

    // --- the token

    function test_the_token_has_six_decimals_and_a_limit() public {
        eq(token.decimals(), 6, "decimals");
        uint256 left = token.MAX_SUPPLY() - token.totalSupply();
        vm.expectRevert();
        token.mint(customer, 1);
        vm.startPrank(admin);
        token.mint(customer, left);
        vm.expectRevert(abi.encodeWithSelector(DMLToken.SupplyExceeded.selector, 1, 0));
        token.mint(customer, 1);
        vm.stopPrank();
        require(token.MAX_SUPPLY() <= type(uint56).max, "an amount might not fit a ticket");
    }

    function test_bad_terms_are_refused() public {
        DMLEscrow.Terms memory bad = terms();
        bad.lapseTime = bad.challengeTime;
        vm.expectPartialRevert(DMLEscrow.BadTerms.selector);
        new DMLEscrow(bad);
        bad = terms();
        bad.dailySlashCap = bad.deposit - 1;
        vm.expectPartialRevert(DMLEscrow.BadTerms.selector);
        new DMLEscrow(bad);
        bad = terms();
        bad.deposit += 1;
        vm.expectPartialRevert(DMLEscrow.BadTerms.selector);
        new DMLEscrow(bad);
    }
}
