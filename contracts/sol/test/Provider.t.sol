// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {DMLEscrow} from "../DMLEscrow.sol";
import {Base} from "./Base.sol";

/// @dev A provider's contract wallet that tries to withdraw again out of its own payment.
contract Greedy {
    DMLEscrow private immutable escrow;

    constructor(DMLEscrow escrow_) {
        escrow = escrow_;
    }

    function register() external payable {
        escrow.register{value: msg.value}("greedy");
        escrow.requestExit();
    }

    function withdraw() external {
        escrow.withdraw();
    }

    receive() external payable {
        escrow.withdraw();
    }
}

/// @dev Joining, leaving, accusations, bans.
contract ProviderTest is Base {
    address private constant P1 = address(0x1001);
    address private constant P2 = address(0x1002);
    address private constant P3 = address(0x1003);
    address private constant P4 = address(0x1004);

    function setUp() public override {
        super.setUp();
        join(P1);
        join(P2);
        join(P3);
    }

    // --- joining and leaving

    function test_register_takes_exactly_the_deposit_and_a_reference() public {
        vm.deal(P4, 1 ether);
        vm.startPrank(P4);
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.WrongDeposit.selector, DEPOSIT, DEPOSIT - 1));
        escrow.register{value: DEPOSIT - 1}("ref");
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.WrongDeposit.selector, DEPOSIT, DEPOSIT + 1));
        escrow.register{value: DEPOSIT + 1}("ref");
        vm.expectPartialRevert(DMLEscrow.NoReference.selector);
        escrow.register{value: DEPOSIT}(0);
        escrow.register{value: DEPOSIT}("ref");
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.WrongStanding.selector, P4, DMLEscrow.Standing.Active));
        escrow.register{value: DEPOSIT}("ref");
        vm.stopPrank();
        eq(escrow.staked(), 4 * uint256(DEPOSIT), "staked");
    }

    function test_leave_after_unbonding_and_come_back() public {
        vm.startPrank(P1);
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.WrongStanding.selector, P1, DMLEscrow.Standing.Active));
        escrow.withdraw();
        escrow.requestExit();
        vm.warp(START + UNBONDING - 1);
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.TooEarly.selector, START + UNBONDING));
        escrow.withdraw();
        vm.warp(START + UNBONDING);
        escrow.withdraw();
        eq(P1.balance, DEPOSIT, "whole again");
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.WrongStanding.selector, P1, DMLEscrow.Standing.None));
        escrow.withdraw();
        escrow.register{value: DEPOSIT}("again");
        vm.stopPrank();
    }

    function test_the_way_out_stays_open_while_paused() public {
        vm.prank(guardian);
        escrow.pause();
        vm.startPrank(P1);
        escrow.requestExit();
        vm.warp(START + UNBONDING);
        escrow.withdraw();
        vm.expectPartialRevert(Pausable.EnforcedPause.selector);
        escrow.register{value: DEPOSIT}("again");
        vm.stopPrank();
    }

    function test_nobody_withdraws_twice_out_of_one_payment() public {
        Greedy greedy = new Greedy(escrow);
        vm.deal(address(this), DEPOSIT);
        greedy.register{value: DEPOSIT}();
        vm.warp(START + UNBONDING);
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.CoinNotAccepted.selector, address(greedy)));
        greedy.withdraw();
        eq(stakeOf(address(greedy)), DEPOSIT, "stake");
    }

    // --- accusing

    function accuse(uint256 caseId, address[] memory cheats, address[] memory honest) private {
        vm.prank(settler);
        escrow.accuse(caseId, cheats, honest);
    }

    function execute(uint256 caseId, address[] memory cheats, address[] memory honest) private {
        vm.prank(settler);
        escrow.executeBan(caseId, cheats, honest);
    }

    function test_fail_ticket_refunds_at_once_and_bans_later() public {
        payTicket(7, 5e6);
        vm.prank(settler);
        escrow.failTicket(7, list(P1), list(P2, P3));
        eq(token.balanceOf(customer), 100_000e6, "refunded");
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.TooEarly.selector, START + CHALLENGE));
        execute(7, list(P1), list(P2, P3));
        vm.warp(START + CHALLENGE);
        execute(7, list(P1), list(P2, P3));
        eq(uint256(standingOf(P1)), uint256(DMLEscrow.Standing.Banned), "banned");
        eq(stakeOf(P1), 0, "stake");
        eq(escrow.ethCredit(P2), DEPOSIT / 2, "P2");
        eq(escrow.ethCredit(P3), DEPOSIT / 2, "P3");
        vm.prank(P2);
        escrow.withdrawCredit();
        eq(P2.balance, DEPOSIT / 2, "fetched");
        vm.prank(P2);
        vm.expectPartialRevert(DMLEscrow.NothingToWithdraw.selector);
        escrow.withdrawCredit();
    }

    function test_the_banned_never_return() public {
        accuse(1, list(P1), list());
        vm.warp(START + CHALLENGE);
        execute(1, list(P1), list());
        vm.deal(P1, 1 ether);
        vm.startPrank(P1);
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.WrongStanding.selector, P1, DMLEscrow.Standing.Banned));
        escrow.register{value: DEPOSIT}("again");
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.WrongStanding.selector, P1, DMLEscrow.Standing.Banned));
        escrow.requestExit();
        vm.stopPrank();
        payTicket(1, 100);
        vm.prank(settler);
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.NotInStanding.selector, P1));
        escrow.settle(1, list(P1), sums(98), 0);
    }

    function test_dust_and_the_share_of_nobody_go_to_the_treasury() public {
        join(P4);
        accuse(1, list(P1), list(P2, P3, P4));
        accuse(2, list(P2), list());
        vm.warp(START + CHALLENGE);
        execute(1, list(P1), list(P2, P3, P4));
        uint256 part = uint256(DEPOSIT) / 3 / 1 gwei * 1 gwei;
        eq(escrow.ethCredit(P4), part, "whole gwei");
        eq(escrow.ethCredit(treasury), DEPOSIT - 3 * part, "dust");
        execute(2, list(P2), list());
        eq(escrow.ethCredit(treasury), 2 * uint256(DEPOSIT) - 3 * part, "nobody's");
        eq(escrow.ethCredit(P2), part, "what was credited before stays");
    }

    function test_whoever_is_banned_shares_nothing() public {
        accuse(1, list(P1), list(P1, P2));
        vm.warp(START + CHALLENGE);
        execute(1, list(P1), list(P1, P2));
        eq(escrow.ethCredit(P1), 0, "the cheat");
        eq(escrow.ethCredit(P2), DEPOSIT, "the honest one");
    }

    function test_only_the_lists_of_the_accusation_can_be_executed() public {
        accuse(1, list(P1), list(P2));
        vm.warp(START + CHALLENGE);
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.WrongCaseLists.selector, 1));
        execute(1, list(P1), list(P3));
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.WrongCaseLists.selector, 1));
        execute(1, list(P3), list(P2));
        execute(1, list(P1), list(P2));
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.WrongCaseState.selector, 1, DMLEscrow.CaseState.Executed));
        execute(1, list(P1), list(P2));
    }

    function test_the_accused_cannot_slip_away() public {
        vm.prank(P1);
        escrow.requestExit();
        vm.warp(START + UNBONDING);
        accuse(1, list(P1), list());
        vm.prank(P1);
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.Frozen.selector, P1, START + UNBONDING + LAPSE));
        escrow.withdraw();
        vm.warp(START + UNBONDING + CHALLENGE);
        execute(1, list(P1), list());
        eq(escrow.ethCredit(treasury), DEPOSIT, "slashed while leaving");
    }

    function test_an_accusation_left_alone_lapses() public {
        vm.prank(P1);
        escrow.requestExit();
        accuse(1, list(P1), list());
        vm.warp(START + LAPSE);
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.WrongCaseState.selector, 1, DMLEscrow.CaseState.Lapsed));
        execute(1, list(P1), list());
        vm.prank(guardian);
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.WrongCaseState.selector, 1, DMLEscrow.CaseState.Lapsed));
        escrow.acquit(1);
        vm.warp(START + UNBONDING);
        vm.prank(P1);
        escrow.withdraw();
        eq(P1.balance, DEPOSIT, "whole again");
    }

    function test_acquittal_frees_the_accused_and_ends_the_case() public {
        vm.prank(P1);
        escrow.requestExit();
        vm.warp(START + UNBONDING);
        accuse(1, list(P1), list());
        accuse(2, list(P1), list());
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.NotGuardian.selector, address(this)));
        escrow.acquit(1);
        vm.prank(guardian);
        escrow.acquit(1);
        require(escrow.isFrozen(P1), "the other case is open");
        vm.prank(admin);
        escrow.acquit(2);
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.WrongCaseState.selector, 2, DMLEscrow.CaseState.Acquitted));
        execute(2, list(P1), list());
        vm.prank(P1);
        escrow.withdraw();
    }

    function test_a_case_number_is_used_once() public {
        accuse(1, list(P1), list());
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.WrongCaseState.selector, 1, DMLEscrow.CaseState.Open));
        accuse(1, list(P2), list());
        vm.warp(START + LAPSE);
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.WrongCaseState.selector, 1, DMLEscrow.CaseState.Lapsed));
        accuse(1, list(P2), list());
    }

    function test_one_who_left_is_banned_without_a_stake() public {
        accuse(1, list(P4), list(P1));
        vm.warp(START + CHALLENGE);
        execute(1, list(P4), list(P1));
        eq(uint256(standingOf(P4)), uint256(DMLEscrow.Standing.Banned), "banned");
        eq(escrow.ethCredits(), 0, "nothing to share");
    }

    function test_one_convicted_twice_pays_once() public {
        accuse(1, list(P1), list(P2));
        accuse(2, list(P1, P3), list(P2));
        vm.warp(START + CHALLENGE);
        execute(1, list(P1), list(P2));
        execute(2, list(P1, P3), list(P2));
        eq(escrow.ethCredit(P2), 2 * uint256(DEPOSIT), "two stakes");
    }

    function test_bans_are_capped_by_the_day() public {
        join(P4);
        accuse(1, list(P1, P2), list());
        accuse(2, list(P3, P4), list());
        vm.warp(START + CHALLENGE);
        execute(1, list(P1, P2), list());
        eq(escrow.slashLeft(), DEPOSIT, "left");
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.DailyCapReached.selector, 2 * uint256(DEPOSIT), DEPOSIT));
        execute(2, list(P3, P4), list());
        vm.warp(START + CHALLENGE + 1 days);
        execute(2, list(P3, P4), list());
    }

    function test_a_case_beyond_the_cap_is_refused_at_once() public {
        address[] memory four = new address[](4);
        (four[0], four[1], four[2], four[3]) = (P1, P2, P3, P4);
        vm.expectRevert(
            abi.encodeWithSelector(DMLEscrow.CaseTooLarge.selector, 4 * uint256(DEPOSIT), 3 * uint256(DEPOSIT))
        );
        accuse(1, four, list());
    }

    function test_bad_lists_are_refused() public {
        vm.expectPartialRevert(DMLEscrow.NobodyAccused.selector);
        accuse(1, list(), list(P1));
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.NotAscending.selector, P1));
        accuse(1, list(P1, P1), list());
        vm.expectRevert(abi.encodeWithSelector(DMLEscrow.NotAscending.selector, P2));
        accuse(1, list(P1), list(P3, P2));
    }

    function test_while_paused_nobody_is_accused_or_banned() public {
        payTicket(7, 100);
        accuse(1, list(P1), list());
        vm.prank(guardian);
        escrow.pause();
        vm.warp(START + CHALLENGE);
        vm.expectPartialRevert(Pausable.EnforcedPause.selector);
        execute(1, list(P1), list());
        vm.expectPartialRevert(Pausable.EnforcedPause.selector);
        accuse(2, list(P2), list());
        vm.prank(settler);
        vm.expectPartialRevert(Pausable.EnforcedPause.selector);
        escrow.failTicket(7, list(P2), list());
        vm.prank(guardian);
        escrow.acquit(1);
    }

    function test_accusing_and_banning_are_for_the_settler() public {
        vm.expectPartialRevert(IAccessControl.AccessControlUnauthorizedAccount.selector);
        escrow.accuse(1, list(P1), list());
        vm.expectPartialRevert(IAccessControl.AccessControlUnauthorizedAccount.selector);
        escrow.failTicket(1, list(P1), list());
        accuse(1, list(P1), list());
        vm.warp(START + CHALLENGE);
        vm.expectPartialRevert(IAccessControl.AccessControlUnauthorizedAccount.selector);
        escrow.executeBan(1, list(P1), list());
    }
}
