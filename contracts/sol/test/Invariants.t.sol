// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {DMLEscrow} from "../DMLEscrow.sol";
import {DMLToken} from "../DMLToken.sol";
import {Base} from "./Base.sol";

/**
 * @dev Does what customers, providers, keys and strangers may do, in any order, with bad arguments too, and keeps
 * books of its own. Every act is either refused by the escrow or booked; a revert of the handler itself is a
 * failure (fail_on_revert), so its own `require`s count.
 */
contract Handler is Base {
    uint256 private constant PEOPLE = 5;
    uint256 private constant TICKETS = 12;

    uint256 public paid;
    uint256 public settled;
    uint256 public refunded;
    uint256 public bans;
    bool public absorbed = true;
    mapping(uint256 ticketId => DMLEscrow.TicketState) private last;
    mapping(address provider => bool) private wasBanned;
    bool public banIsForGood = true;
    uint256 private nextCase = 1000;
    mapping(uint256 caseId => address[]) private cheatsOf;
    mapping(uint256 caseId => address[]) private honestOf;
    uint256[] private cases;

    constructor() {
        Base.setUp();
        for (uint256 i = 0; i < PEOPLE; ++i) {
            vm.deal(person(i), 1 ether);
            if (i > 0) join(person(i));
        }
    }

    modifier watched() {
        _;
        watch();
    }

    function setUp() public pure override {}

    function escrow_() external view returns (DMLEscrow) {
        return escrow;
    }

    function token_() external view returns (DMLToken) {
        return token;
    }

    function person(uint256 seed) public pure returns (address) {
        return address(uint160(0x2000 + seed % PEOPLE));
    }

    function ticketCount() external pure returns (uint256) {
        return TICKETS;
    }

    function peopleCount() external pure returns (uint256) {
        return PEOPLE;
    }

    // --- customers

    function pay(uint256 seed, uint256 amount, bool wrong) external watched {
        uint256 ticketId = likely(seed, DMLEscrow.TicketState.None);
        amount = bound(amount, 1, 1_000e6);
        DMLEscrow.Quote memory quote = quoted(ticketId, amount);
        bytes memory data = abi.encode(quote, signed(quote, QUOTER_KEY));
        vm.prank(customer);
        try token.transferAndCall(address(escrow), wrong ? amount + 1 : amount, data) {
            require(!wrong, "a wrong amount was taken");
            paid += amount;
        } catch {}
    }

    function stray(uint256 amount) external watched {
        vm.prank(customer);
        token.transfer(address(escrow), bound(amount, 0, 1e6));
    }

    // --- the platform

    function settle(uint256 seed, uint256 first, uint256 second, uint256 fee) external watched {
        uint256 ticketId = likely(seed, DMLEscrow.TicketState.Paid);
        (, uint56 amount,,) = escrow.tickets(ticketId);
        uint256 left = amount - bound(fee, 0, uint256(amount) * 250 / 10_000);
        (address a, address b) = two(first, second);
        uint256 share = bound(second, 0, left);
        vm.prank(settler);
        try escrow.settle(ticketId, list(a, b), sums(share, left - share), bytes32(seed)) {
            settled += amount;
        } catch {}
    }

    function refund(uint256 seed, bool bySettler) external watched {
        uint256 ticketId = seed % TICKETS;
        (, uint56 amount,,) = escrow.tickets(ticketId);
        vm.prank(bySettler ? settler : address(0xA11));
        try escrow.refund(ticketId) {
            refunded += amount;
        } catch {}
    }

    function failTicket(uint256 seed, uint256 cheat, uint256 honest) external watched {
        uint256 ticketId = seed % TICKETS;
        (, uint56 amount,,) = escrow.tickets(ticketId);
        address[] memory cheats = list(person(cheat));
        address[] memory others = list(person(honest));
        vm.prank(settler);
        try escrow.failTicket(ticketId, cheats, others) {
            refunded += amount;
            keep(ticketId, cheats, others);
        } catch {}
    }

    function accuse(uint256 first, uint256 second, uint256 honest) external watched {
        (address a, address b) = two(first, second);
        vm.prank(settler);
        try escrow.accuse(nextCase, list(a, b), list(person(honest))) {
            keep(nextCase++, list(a, b), list(person(honest)));
        } catch {}
    }

    function executeBan(uint256 seed) external watched {
        if (cases.length == 0) return;
        uint256 caseId = ripe(seed);
        vm.prank(settler);
        try escrow.executeBan(caseId, cheatsOf[caseId], honestOf[caseId]) {
            ++bans;
        } catch {}
    }

    // --- the guardian

    function acquit(uint256 seed) external watched {
        if (cases.length == 0) return;
        uint256 caseId = cases[seed % cases.length];
        bool open = escrow.caseState(caseId) == DMLEscrow.CaseState.Open;
        vm.prank(guardian);
        try escrow.acquit(caseId) {
            require(open, "a closed case was acquitted");
        } catch {
            require(!open, "an open case could not be acquitted");
        }
    }

    function pause(uint256 seed) external watched {
        if (escrow.paused()) {
            vm.prank(admin);
            escrow.unpause();
        } else if (seed % 8 == 0) {
            vm.prank(guardian);
            escrow.pause();
        }
    }

    // --- providers

    function register(uint256 seed) external watched {
        vm.prank(person(seed));
        try escrow.register{value: DEPOSIT}(bytes32(seed | 1)) {} catch {}
    }

    function exit(uint256 seed) external watched {
        vm.prank(person(seed));
        try escrow.requestExit() {} catch {}
    }

    function withdraw(uint256 seed) external watched {
        vm.prank(person(seed));
        try escrow.withdraw() {} catch {}
    }

    function withdrawCredit(uint256 seed) external watched {
        vm.prank(person(seed));
        try escrow.withdrawCredit() {} catch {}
    }

    // --- time

    function pass(uint256 time) external watched {
        vm.warp(block.timestamp + bound(time, 1, 1 days));
    }

    // --- books

    /// @dev Mostly a ticket in this state, one time in four any: random picks would seldom get anywhere.
    function likely(uint256 seed, DMLEscrow.TicketState state) private view returns (uint256 ticketId) {
        for (uint256 i = 0; i < TICKETS && seed % 4 > 0; ++i) {
            if (stateOf((seed % TICKETS + i) % TICKETS) == state) return (seed % TICKETS + i) % TICKETS;
        }
        return seed % TICKETS;
    }

    /// @dev Mostly a case that can be executed now.
    function ripe(uint256 seed) private view returns (uint256 caseId) {
        for (uint256 i = 0; i < cases.length && seed % 4 > 0; ++i) {
            caseId = cases[(seed % cases.length + i) % cases.length];
            (DMLEscrow.CaseState state, uint256 from,,) = escrow.accusation(caseId);
            if (state == DMLEscrow.CaseState.Open && from <= block.timestamp) return caseId;
        }
        return cases[seed % cases.length];
    }

    function keep(uint256 caseId, address[] memory cheats, address[] memory honest) private {
        cheatsOf[caseId] = cheats;
        honestOf[caseId] = honest;
        cases.push(caseId);
    }

    function two(uint256 first, uint256 second) private pure returns (address a, address b) {
        (a, b) = (person(first), person(second));
        if (a == b) b = person(second % PEOPLE + 1);
        if (a > b) (a, b) = (b, a);
    }

    function watch() private {
        for (uint256 i = 0; i < TICKETS; ++i) {
            DMLEscrow.TicketState state = stateOf(i);
            if (uint256(last[i]) >= uint256(DMLEscrow.TicketState.Settled) && state != last[i]) absorbed = false;
            last[i] = state;
        }
        for (uint256 i = 0; i < PEOPLE; ++i) {
            bool banned = standingOf(person(i)) == DMLEscrow.Standing.Banned;
            if (wasBanned[person(i)] && !banned) banIsForGood = false;
            wasBanned[person(i)] = banned;
        }
    }
}

contract InvariantTest is Base {
    Handler private handler;

    function setUp() public override {
        handler = new Handler();
        escrow = handler.escrow_();
        token = handler.token_();
    }

    /// @dev forge asks this which contracts to call
    function targetContracts() external view returns (address[] memory) {
        return list(address(handler));
    }

    /// @dev One campaign for all of them: forge would run one for each function.
    function invariant_books() external view {
        tokens_cover_what_is_owed();
        coins_cover_stakes_and_credits();
        escrowed_is_the_sum_of_paid_tickets();
        paid_is_escrowed_settled_or_refunded();
        staked_and_credits_are_the_sums_of_their_owners();
        ends_are_for_good();
        the_day_is_capped();
    }

    function tokens_cover_what_is_owed() private view {
        require(token.balanceOf(address(escrow)) >= uint256(escrow.escrowed()) + escrow.tokenCredits(), "short");
    }

    function coins_cover_stakes_and_credits() private view {
        eq(address(escrow).balance, uint256(escrow.staked()) + escrow.ethCredits(), "coins");
    }

    function escrowed_is_the_sum_of_paid_tickets() private view {
        uint256 sum = 0;
        for (uint256 i = 0; i < handler.ticketCount(); ++i) {
            (, uint56 amount,, DMLEscrow.TicketState state) = escrow.tickets(i);
            if (state == DMLEscrow.TicketState.Paid) sum += amount;
        }
        eq(escrow.escrowed(), sum, "escrowed");
    }

    function paid_is_escrowed_settled_or_refunded() private view {
        eq(handler.paid(), escrow.escrowed() + handler.settled() + handler.refunded(), "paid");
    }

    /// @dev The banned have no stake, those in standing a whole one.
    function staked_and_credits_are_the_sums_of_their_owners() private view {
        (uint256 stakes, uint256 credits) = (0, escrow.ethCredit(treasury));
        for (uint256 i = 0; i < handler.peopleCount(); ++i) {
            address account = handler.person(i);
            (uint256 stake,,,, DMLEscrow.Standing standing) = escrow.providers(account);
            bool stands = standing == DMLEscrow.Standing.Active || standing == DMLEscrow.Standing.Exiting;
            eq(stake, stands ? DEPOSIT : 0, "stake");
            stakes += stake;
            credits += escrow.ethCredit(account);
        }
        eq(escrow.staked(), stakes, "staked");
        eq(escrow.ethCredits(), credits, "credits");
    }

    function ends_are_for_good() private view {
        require(handler.absorbed(), "a settled or refunded ticket moved");
        require(handler.banIsForGood(), "a banned provider came back");
    }

    function the_day_is_capped() private view {
        require(escrow.slashLeft() <= escrow.dailySlashCap(), "cap");
    }

    /// @dev What is left in the end: everybody's way out, whatever happened before.
    function afterInvariant() external {
        vm.warp(block.timestamp + 30 days);
        if (!escrow.paused()) {
            vm.prank(guardian);
            escrow.pause();
        }
        refundAll();
        leaveAll();
        eq(escrow.escrowed(), 0, "escrowed at the end");
        eq(escrow.staked(), 0, "staked at the end");
        eq(address(escrow).balance, escrow.ethCredit(treasury), "only the treasury's left");
    }

    function refundAll() private {
        for (uint256 i = 0; i < handler.ticketCount(); ++i) {
            if (stateOf(i) == DMLEscrow.TicketState.Paid) escrow.refund(i);
        }
    }

    function leaveAll() private {
        for (uint256 i = 0; i < handler.peopleCount(); ++i) {
            address account = handler.person(i);
            if (standingOf(account) == DMLEscrow.Standing.Active) {
                vm.prank(account);
                escrow.requestExit();
            }
        }
        vm.warp(block.timestamp + UNBONDING);
        for (uint256 i = 0; i < handler.peopleCount(); ++i) {
            address account = handler.person(i);
            vm.startPrank(account);
            if (standingOf(account) == DMLEscrow.Standing.Exiting) escrow.withdraw();
            if (escrow.ethCredit(account) > 0) escrow.withdrawCredit();
            vm.stopPrank();
        }
    }
}
