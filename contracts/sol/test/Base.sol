// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {DMLEscrow} from "../DMLEscrow.sol";
import {DMLToken} from "../DMLToken.sol";

/// @dev What these tests use of forge's cheat codes (npm's forge-std is far behind forge).
interface Vm {
    function prank(address sender) external;
    function startPrank(address sender) external;
    function stopPrank() external;
    function warp(uint256 timestamp) external;
    function deal(address account, uint256 balance) external;
    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function expectRevert() external;
    function expectPartialRevert(bytes4 selector) external;
    function expectRevert(bytes calldata data) external;
    function expectEmit(address emitter) external;
    function mockCall(address callee, bytes calldata data, bytes calldata returned) external;
    function clearMockedCalls() external;
    function assume(bool condition) external pure;
}

/// @dev A deployment, its people, and the few verbs that most tests need.
abstract contract Base {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    uint256 internal constant QUOTER_KEY = 0xA11CE;
    uint256 internal constant CUSTOMER_KEY = 0xB0B;
    uint96 internal constant DEPOSIT = 0.001 ether;
    uint40 internal constant UNBONDING = 3 days;
    uint40 internal constant CHALLENGE = 6 hours;
    uint40 internal constant LAPSE = 2 days;
    uint256 internal constant START = 1_800_000_000;

    address internal immutable admin = address(0xAD);
    address internal immutable settler = address(0x5E);
    address internal immutable guardian = address(0x6A);
    address internal immutable treasury = address(0x7E);
    address internal immutable customer = vm.addr(CUSTOMER_KEY);

    DMLToken internal token;
    DMLEscrow internal escrow;

    function setUp() public virtual {
        vm.warp(START);
        token = new DMLToken(admin, 1_000_000e6);
        escrow = new DMLEscrow(terms());
        vm.prank(admin);
        token.transfer(customer, 100_000e6);
    }

    function terms() internal view returns (DMLEscrow.Terms memory) {
        return DMLEscrow.Terms({
            token: address(token),
            treasury: treasury,
            deposit: DEPOSIT,
            unbondingTime: UNBONDING,
            challengeTime: CHALLENGE,
            lapseTime: LAPSE,
            dailySlashCap: 3 * DEPOSIT,
            maxFeeBps: 200,
            adminDelay: 1 days,
            admin: admin,
            quoter: vm.addr(QUOTER_KEY),
            settler: settler,
            guardian: guardian
        });
    }

    function quoted(uint256 ticketId, uint256 amount) internal view returns (DMLEscrow.Quote memory) {
        return
            DMLEscrow.Quote(
                ticketId, customer, amount, uint64(block.timestamp + 1 hours), uint64(block.timestamp + 10 days)
            );
    }

    function signed(DMLEscrow.Quote memory quote, uint256 key) internal view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, escrow.hashQuote(quote));
        return abi.encodePacked(r, s, v);
    }

    function payTicket(uint256 ticketId, uint256 amount) internal {
        DMLEscrow.Quote memory quote = quoted(ticketId, amount);
        bytes memory data = abi.encode(quote, signed(quote, QUOTER_KEY));
        vm.prank(customer);
        token.transferAndCall(address(escrow), amount, data);
    }

    function join(address provider) internal {
        vm.deal(provider, provider.balance + DEPOSIT);
        vm.prank(provider);
        escrow.register{value: DEPOSIT}(bytes32(uint256(uint160(provider))));
    }

    function stateOf(uint256 ticketId) internal view returns (DMLEscrow.TicketState state) {
        (,,, state) = escrow.tickets(ticketId);
    }

    function stakeOf(address provider) internal view returns (uint256 stake) {
        (stake,,,,) = escrow.providers(provider);
    }

    function standingOf(address provider) internal view returns (DMLEscrow.Standing standing) {
        (,,,, standing) = escrow.providers(provider);
    }

    function list() internal pure returns (address[] memory) {
        return new address[](0);
    }

    function list(address a) internal pure returns (address[] memory found) {
        found = new address[](1);
        found[0] = a;
    }

    function list(address a, address b) internal pure returns (address[] memory found) {
        found = new address[](2);
        (found[0], found[1]) = (a, b);
    }

    function list(address a, address b, address c) internal pure returns (address[] memory found) {
        found = new address[](3);
        (found[0], found[1], found[2]) = (a, b, c);
    }

    function sums(uint256 a) internal pure returns (uint256[] memory found) {
        found = new uint256[](1);
        found[0] = a;
    }

    function sums(uint256 a, uint256 b) internal pure returns (uint256[] memory found) {
        found = new uint256[](2);
        (found[0], found[1]) = (a, b);
    }

    function bound(uint256 value, uint256 low, uint256 high) internal pure returns (uint256) {
        return low + value % (high - low + 1);
    }

    function eq(uint256 got, uint256 expected, string memory what) internal pure {
        require(got == expected, string.concat(what, ": ", text(got), " instead of ", text(expected)));
    }

    function text(uint256 number) internal pure returns (string memory) {
        if (number < 10) return string(abi.encodePacked(bytes1(uint8(48 + number))));
        return string.concat(text(number / 10), text(number % 10));
    }
}
