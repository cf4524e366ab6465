// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {
    AccessControlDefaultAdminRules
} from "@openzeppelin/contracts/access/extensions/AccessControlDefaultAdminRules.sol";
import {IERC1363Receiver} from "@openzeppelin/contracts/interfaces/IERC1363Receiver.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

/**
 * @title DML escrow: customers' payments, providers' deposits, and what becomes of either
 * @notice Immutable: no proxy, no setter for money, times or addresses. Four kinds of key:
 * QUOTER signs quotes off the chain; SETTLER is the platform's hot key; GUARDIAN pauses and vetoes bans;
 * the default admin is cold, appoints the others and lifts a pause.
 *
 * Equalities that always hold:
 *   token.balanceOf(this) >= escrowed + tokenCredits   (the rest is surplus: tokens sent here by mistake)
 *   escrowed              == sum of the amounts of all tickets in state Paid
 *   address(this).balance >= staked + ethCredits
 *   staked                == sum of the stakes of all providers; a banned one has none
 *
 * While paused the hot key can do nothing but refund, and nobody's way out is closed.
 *
 * Storage note: Pausable has to stay the last base with storage, so that its flag shares a slot with the first two
 * totals (one cold read less in every payment and settlement).
 */
contract DMLEscrow is
    AccessControlDefaultAdminRules,
    EIP712,
    ReentrancyGuardTransient,
    IERC1363Receiver,
    Pausable
{
    using SafeERC20 for IERC20;

    // ---------------------------------------------------------------------------------------------------- types

    /// @notice Paid is the only state with money in it; Settled and Refunded are for good.
    enum TicketState {
        None,
        Paid,
        Settled,
        Refunded
    }

    /// @notice Active and Exiting are "in standing": both have a stake at risk. Banned is for good.
    enum Standing {
        None,
        Active,
        Exiting,
        Banned
    }

    /// @notice An Open case lapses by time alone: see `caseState`.
    enum CaseState {
        None,
        Open,
        Acquitted,
        Executed,
        Lapsed
    }

    /// @notice What the platform offers: signed by QUOTER as EIP-712 typed data, good for one payment of one payer.
    struct Quote {
        uint256 ticketId;
        address payer;
        uint256 amount; // micro-DML, exactly
        uint64 payBy; // the last second in which it can be paid
        uint64 settleBy; // from this second on it can only be refunded, and by anyone
    }

    /// @dev One slot. 56 bits hold seven times the token's whole supply; 32 bits of seconds last until 2106.
    struct Ticket {
        address payer;
        uint56 amount;
        uint32 settleBy;
        TicketState state;
    }

    /// @dev One slot.
    struct Provider {
        uint96 stake; // wei
        uint40 unlockAt; // when an Exiting provider may withdraw
        uint40 frozenUntil; // the latest lapse of its accusations
        uint16 openCases; // accusations not yet acquitted; meaningless once frozenUntil is past
        Standing standing;
    }

    /// @dev `cheats` is kept so that a veto needs the case number only; `digest` binds both lists.
    struct Case {
        bytes32 digest;
        uint40 executableAt;
        uint40 lapsesAt;
        CaseState state;
        address[] cheats;
    }

    /// @notice Fixed for ever at deployment. Times in seconds, native coin in wei.
    struct Terms {
        address token;
        address treasury;
        uint96 deposit; // what a provider locks: a whole number of gwei
        uint40 unbondingTime; // from requestExit to withdraw
        uint40 challengeTime; // from accusation to ban: the guardian's time for a veto
        uint40 lapseTime; // from accusation to its lapse; longer than challengeTime
        uint96 dailySlashCap; // the most stake that bans can take in one UTC day
        uint16 maxFeeBps; // the platform's fee, at most, in 1/10000 of a ticket
        uint48 adminDelay; // waiting time before another default admin can take over
        address admin;
        address quoter;
        address settler;
        address guardian;
    }

    // --------------------------------------------------------------------------------------------------- events

    event Paid(uint256 indexed ticketId, address indexed payer, uint256 amount);
    event Settled(uint256 indexed ticketId, uint256 amount, uint256 fee, bytes32 receiptRoot);
    event ProviderPaid(uint256 indexed ticketId, address indexed provider, uint256 amount);
    event Refunded(uint256 indexed ticketId, address indexed payer, uint256 amount);
    event TokenCredited(address indexed owner, uint256 amount);
    event TokenCreditWithdrawn(address indexed owner, address indexed to, uint256 amount);
    event SurplusMoved(address indexed to, uint256 amount);

    event Registered(address indexed provider, bytes32 indexed ref, uint256 stake);
    event ExitRequested(address indexed provider, uint256 unlockAt);
    event Withdrawn(address indexed provider, uint256 stake);

    event Accused(
        uint256 indexed caseId, address[] cheats, address[] honest, uint256 executableAt, uint256 lapsesAt
    );
    event Acquitted(uint256 indexed caseId);
    event Banned(address indexed provider, uint256 indexed caseId, uint256 stake);
    event StakeShared(uint256 indexed caseId, address indexed provider, uint256 amount);
    event CreditWithdrawn(address indexed owner, uint256 amount);

    // --------------------------------------------------------------------------------------------------- errors

    error BadTerms();
    error NotToken(address caller);
    error QuoteLate(uint256 payBy);
    error QuoteOutOfRange();
    error QuoteForged();
    error WrongPayer(address expected, address got);
    error WrongAmount(uint256 expected, uint256 got);
    error WrongTicketState(uint256 ticketId, TicketState state);
    error TooLate(uint256 settleBy);
    error TooEarly(uint256 from);
    error LengthsDiffer();
    error NotAscending(address account);
    error NotInStanding(address provider);
    error SharesExceedAmount(uint256 shares, uint256 amount);
    error FeeTooHigh(uint256 fee, uint256 most);
    error WrongDeposit(uint256 expected, uint256 got);
    error NoReference();
    error WrongStanding(address provider, Standing standing);
    error Frozen(address provider, uint256 until);
    error NobodyAccused();
    error CaseTooLarge(uint256 stake, uint256 most);
    error WrongCaseState(uint256 caseId, CaseState state);
    error WrongCaseLists(uint256 caseId);
    error DailyCapReached(uint256 stake, uint256 left);
    error NothingToWithdraw();
    error CoinNotAccepted(address to);
    error NotGuardian(address account);
    error BeyondSurplus(uint256 amount, uint256 surplus);

    // ---------------------------------------------------------------------------------------------------- state

    bytes32 public constant QUOTER = keccak256("QUOTER");
    bytes32 public constant SETTLER = keccak256("SETTLER");
    bytes32 public constant GUARDIAN = keccak256("GUARDIAN");
    bytes32 private constant QUOTE_TYPEHASH =
        keccak256("Quote(uint256 ticketId,address payer,uint256 amount,uint64 payBy,uint64 settleBy)");

    IERC20 public immutable token;
    address public immutable treasury;
    uint256 public immutable deposit;
    uint256 public immutable unbondingTime;
    uint256 public immutable challengeTime;
    uint256 public immutable lapseTime;
    uint256 public immutable dailySlashCap;
    uint256 public immutable maxFeeBps;

    /// @notice micro-DML held for tickets in state Paid (shares Pausable's slot, see above)
    uint120 public escrowed;
    /// @notice micro-DML owed to those whom the token refused to pay
    uint120 public tokenCredits;
    /// @notice wei staked by providers
    uint128 public staked;
    /// @notice wei owed out of slashed stakes
    uint128 public ethCredits;
    uint40 private _slashDay;
    uint96 private _slashedThatDay;

    mapping(uint256 ticketId => Ticket) public tickets;
    mapping(address provider => Provider) public providers;
    mapping(uint256 caseId => Case) private _cases;
    /// @notice micro-DML that `owner` can fetch with `withdrawTokenCredit`
    mapping(address owner => uint256) public tokenCredit;
    /// @notice wei that `owner` can fetch with `withdrawCredit`
    mapping(address owner => uint256) public ethCredit;

    /// @param terms everything that can be chosen; checked here, fixed from then on
    constructor(Terms memory terms)
        AccessControlDefaultAdminRules(terms.adminDelay, terms.admin)
        EIP712("DMLEscrow", "1")
    {
        _check(terms);
        token = IERC20(terms.token);
        treasury = terms.treasury;
        deposit = terms.deposit;
        unbondingTime = terms.unbondingTime;
        challengeTime = terms.challengeTime;
        lapseTime = terms.lapseTime;
        dailySlashCap = terms.dailySlashCap;
        maxFeeBps = terms.maxFeeBps;
        _grantRole(QUOTER, terms.quoter);
        _grantRole(SETTLER, terms.settler);
        _grantRole(GUARDIAN, terms.guardian);
    }

    // -------------------------------------------------------------------------------------------------- payment

    /**
     * @notice Pay a quote in one transaction: `token.transferAndCall(escrow, amount, abi.encode(quote, signature))`.
     * @dev Called by the token only (ERC-1363). Whatever does not fit the quote reverts, and the tokens with it.
     * @param from whose tokens came: has to be the quoted payer
     * @param value how many: has to be the quoted amount
     * @param data abi.encode(Quote, bytes signature)
     * @return this function's selector, as ERC-1363 demands
     */
    function onTransferReceived(address, address from, uint256 value, bytes calldata data)
        external
        whenNotPaused
        returns (bytes4)
    {
        if (msg.sender != address(token)) revert NotToken(msg.sender);
        (Quote memory quote, bytes memory signature) = abi.decode(data, (Quote, bytes));
        if (value != quote.amount) revert WrongAmount(quote.amount, value);
        _accept(quote, signature, from);
        return IERC1363Receiver.onTransferReceived.selector;
    }

    /**
     * @notice Pay a quote out of an allowance given before. Only the quoted payer.
     * @param quote the platform's offer
     * @param signature QUOTER's EIP-712 signature of it
     */
    function pay(Quote calldata quote, bytes calldata signature) external whenNotPaused nonReentrant {
        _accept(quote, signature, msg.sender);
        token.safeTransferFrom(msg.sender, address(this), quote.amount);
    }

    /**
     * @notice Pay a quote with an ERC-2612 permit in the same transaction. Only the quoted payer.
     * @dev The permit may fail: whoever sees it in the pool can use it first, which leaves the allowance in place.
     * So only the transfer decides.
     * @param quote the platform's offer
     * @param signature QUOTER's EIP-712 signature of it
     * @param deadline the permit's
     * @param v the permit's signature
     * @param r the permit's signature
     * @param s the permit's signature
     */
    function payWithPermit(
        Quote calldata quote,
        bytes calldata signature,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external whenNotPaused nonReentrant {
        _accept(quote, signature, msg.sender);
        try IERC20Permit(address(token)).permit(
            msg.sender, address(this), quote.amount, deadline, v, r, s
        ) {} catch {}
        token.safeTransferFrom(msg.sender, address(this), quote.amount);
    }

    /**
     * @notice The digest that QUOTER signs.
     * @param quote the offer
     * @return its EIP-712 digest under this contract's domain
     */
    function hashQuote(Quote memory quote) public view returns (bytes32) {
        return _hashTypedDataV4(
            keccak256(
                abi.encode(
                    QUOTE_TYPEHASH, quote.ticketId, quote.payer, quote.amount, quote.payBy, quote.settleBy
                )
            )
        );
    }

    /// @dev Every rule of a quote, and the ticket's entry in the books. The caller moves the tokens.
    function _accept(Quote memory quote, bytes memory signature, address payer) private {
        if (payer != quote.payer) revert WrongPayer(quote.payer, payer);
        if (block.timestamp > quote.payBy) revert QuoteLate(quote.payBy);
        if (
            quote.amount == 0 || quote.amount > type(uint56).max || quote.settleBy > type(uint32).max
                || quote.settleBy <= quote.payBy
        ) revert QuoteOutOfRange();
        Ticket storage ticket = tickets[quote.ticketId];
        if (ticket.state != TicketState.None) revert WrongTicketState(quote.ticketId, ticket.state);
        (address signer, ECDSA.RecoverError failure,) = ECDSA.tryRecover(hashQuote(quote), signature);
        if (failure != ECDSA.RecoverError.NoError || !hasRole(QUOTER, signer)) revert QuoteForged();
        tickets[quote.ticketId] =
            Ticket(payer, uint56(quote.amount), uint32(quote.settleBy), TicketState.Paid);
        escrowed += uint120(quote.amount);
        emit Paid(quote.ticketId, payer, quote.amount);
    }

    // ---------------------------------------------------------------------------------------- settle and refund

    /**
     * @notice Pay a ticket out, once, before its `settleBy`. SETTLER only.
     * @dev The fee is what the shares leave of the amount, so that shares + fee == amount cannot be violated;
     * `maxFeeBps` bounds it. The addresses have to ascend strictly: nobody is paid twice. From `settleBy` on this
     * reverts and only `refund` is left: at no moment can both be done, so there is nothing to race for.
     * @param ticketId a ticket in state Paid
     * @param accounts the providers, ascending, each in standing (Active or Exiting)
     * @param amounts micro-DML for each
     * @param receiptRoot commits to the record of the training (an auditor's entry point)
     */
    function settle(
        uint256 ticketId,
        address[] calldata accounts,
        uint256[] calldata amounts,
        bytes32 receiptRoot
    ) external onlyRole(SETTLER) whenNotPaused nonReentrant {
        Ticket memory ticket = _paid(ticketId);
        if (block.timestamp >= ticket.settleBy) revert TooLate(ticket.settleBy);
        tickets[ticketId].state = TicketState.Settled;
        escrowed -= ticket.amount;
        uint256 fee = _fee(ticket.amount, _payShares(ticketId, accounts, amounts));
        if (fee > 0) _push(treasury, fee);
        emit Settled(ticketId, ticket.amount, fee, receiptRoot);
    }

    /**
     * @notice Give a ticket's whole payment back to the quoted payer. SETTLER at any time; anyone at or after
     * `settleBy`. Works while paused.
     * @param ticketId a ticket in state Paid
     */
    function refund(uint256 ticketId) external nonReentrant {
        Ticket memory ticket = _paid(ticketId);
        if (block.timestamp < ticket.settleBy && !hasRole(SETTLER, msg.sender)) {
            revert TooEarly(ticket.settleBy);
        }
        _refund(ticketId, ticket);
    }

    /**
     * @notice Fetch tokens that could not be pushed. Works while paused.
     * @param to where to: the owner may name another address, as its own may be the one the token refuses
     */
    function withdrawTokenCredit(address to) external nonReentrant {
        uint256 amount = tokenCredit[msg.sender];
        if (amount == 0) revert NothingToWithdraw();
        tokenCredit[msg.sender] = 0;
        tokenCredits -= uint120(amount);
        emit TokenCreditWithdrawn(msg.sender, to, amount);
        token.safeTransfer(to, amount);
    }

    /**
     * @notice Send on tokens that were transferred here by mistake. Admin only; never touches what is owed.
     * @param to where to
     * @param amount micro-DML, at most the surplus
     */
    function moveSurplus(address to, uint256 amount) external onlyRole(DEFAULT_ADMIN_ROLE) nonReentrant {
        uint256 surplus = token.balanceOf(address(this)) - escrowed - tokenCredits;
        if (amount > surplus) revert BeyondSurplus(amount, surplus);
        emit SurplusMoved(to, amount);
        token.safeTransfer(to, amount);
    }

    function _paid(uint256 ticketId) private view returns (Ticket memory ticket) {
        ticket = tickets[ticketId];
        if (ticket.state != TicketState.Paid) revert WrongTicketState(ticketId, ticket.state);
    }

    function _payShares(uint256 ticketId, address[] calldata accounts, uint256[] calldata amounts)
        private
        returns (uint256 sum)
    {
        if (accounts.length != amounts.length) revert LengthsDiffer();
        address last = address(0);
        for (uint256 i = 0; i < accounts.length; ++i) {
            address account = accounts[i];
            if (account <= last) revert NotAscending(account);
            if (!inStanding(account)) revert NotInStanding(account);
            last = account;
            sum += amounts[i];
            _push(account, amounts[i]);
            emit ProviderPaid(ticketId, account, amounts[i]);
        }
    }

    function _fee(uint256 amount, uint256 shares) private view returns (uint256 fee) {
        if (shares > amount) revert SharesExceedAmount(shares, amount);
        fee = amount - shares;
        uint256 most = amount * maxFeeBps / 10_000;
        if (fee > most) revert FeeTooHigh(fee, most);
    }

    function _refund(uint256 ticketId, Ticket memory ticket) private {
        tickets[ticketId].state = TicketState.Refunded;
        escrowed -= ticket.amount;
        emit Refunded(ticketId, ticket.payer, ticket.amount);
        _push(ticket.payer, ticket.amount);
    }

    /// @dev One recipient that the token refuses must not stop the others: it gets a credit instead.
    function _push(address to, uint256 amount) private {
        if (token.trySafeTransfer(to, amount)) return;
        tokenCredit[to] += amount;
        tokenCredits += uint120(amount);
        emit TokenCredited(to, amount);
    }

    // ------------------------------------------------------------------------------------------------ providers

    /**
     * @notice Lock the deposit, exactly, and become an Active provider.
     * @dev `ref` is what the platform issued for this wallet; the transaction proves who owns the wallet. The
     * platform has to compare the event's provider with the wallet it issued `ref` for: a ref can be copied
     * from the pool.
     * @param ref the platform's reference, not zero
     */
    function register(bytes32 ref) external payable whenNotPaused {
        if (msg.value != deposit) revert WrongDeposit(deposit, msg.value);
        if (ref == 0) revert NoReference();
        Provider storage provider = providers[msg.sender];
        if (provider.standing != Standing.None) revert WrongStanding(msg.sender, provider.standing);
        provider.stake = uint96(msg.value);
        provider.standing = Standing.Active;
        staked += uint128(msg.value);
        emit Registered(msg.sender, ref, msg.value);
    }

    /// @notice Start leaving: the stake stays at risk for `unbondingTime`, then `withdraw` returns it.
    function requestExit() external {
        Provider storage provider = providers[msg.sender];
        if (provider.standing != Standing.Active) revert WrongStanding(msg.sender, provider.standing);
        provider.standing = Standing.Exiting;
        provider.unlockAt = uint40(block.timestamp + unbondingTime);
        emit ExitRequested(msg.sender, provider.unlockAt);
    }

    /// @notice Take the stake back after `unbondingTime`, unless an accusation is open. One may register again.
    function withdraw() external nonReentrant {
        Provider storage provider = providers[msg.sender];
        if (provider.standing != Standing.Exiting) revert WrongStanding(msg.sender, provider.standing);
        if (block.timestamp < provider.unlockAt) revert TooEarly(provider.unlockAt);
        if (isFrozen(msg.sender)) revert Frozen(msg.sender, provider.frozenUntil);
        uint256 stake = provider.stake;
        provider.stake = 0;
        provider.unlockAt = 0;
        provider.standing = Standing.None;
        staked -= uint128(stake);
        emit Withdrawn(msg.sender, stake);
        _sendCoin(msg.sender, stake);
    }

    /// @notice Fetch one's part of slashed stakes. Works while paused.
    function withdrawCredit() external nonReentrant {
        uint256 amount = ethCredit[msg.sender];
        if (amount == 0) revert NothingToWithdraw();
        ethCredit[msg.sender] = 0;
        ethCredits -= uint128(amount);
        emit CreditWithdrawn(msg.sender, amount);
        _sendCoin(msg.sender, amount);
    }

    /**
     * @notice Whether an account may be paid by `settle`.
     * @param account the provider
     * @return true for Active and Exiting
     */
    function inStanding(address account) public view returns (bool) {
        Standing standing = providers[account].standing;
        return standing == Standing.Active || standing == Standing.Exiting;
    }

    /**
     * @notice Whether an open accusation holds back an account's stake.
     * @dev With several accusations at once, acquitting the last to lapse frees the account only when the others
     * were acquitted too; at the latest `frozenUntil` frees it.
     * @param account the provider
     * @return true while it cannot withdraw
     */
    function isFrozen(address account) public view returns (bool) {
        Provider storage provider = providers[account];
        return provider.openCases > 0 && block.timestamp < provider.frozenUntil;
    }

    function _sendCoin(address to, uint256 amount) private {
        (bool sent,) = to.call{value: amount}("");
        if (!sent) revert CoinNotAccepted(to);
    }

    // ------------------------------------------------------------------------------------------ accuse and ban

    /**
     * @notice Accuse providers: their stakes are frozen until the case is acquitted, executed or lapses. SETTLER.
     * @dev Cheats that left or were banned meanwhile are accepted: evidence must not fail on their moving first.
     * @param caseId never used before
     * @param cheats ascending, at least one, together at most `dailySlashCap` of stake
     * @param honest ascending, may be empty: who shares the cheats' stakes
     */
    function accuse(uint256 caseId, address[] calldata cheats, address[] calldata honest)
        external
        onlyRole(SETTLER)
        whenNotPaused
    {
        _accuse(caseId, cheats, honest);
    }

    /**
     * @notice Refund a ticket and accuse those who spoilt it, under the ticket's id as case id. SETTLER.
     * @dev Whoever is refused here (paused, too many cheats, already refunded) can still be given `refund`
     * and `accuse` apart: the customer never waits for a case.
     * @param ticketId a ticket in state Paid
     * @param cheats as in `accuse`
     * @param honest as in `accuse`
     */
    function failTicket(uint256 ticketId, address[] calldata cheats, address[] calldata honest)
        external
        onlyRole(SETTLER)
        whenNotPaused
        nonReentrant
    {
        _refund(ticketId, _paid(ticketId));
        _accuse(ticketId, cheats, honest);
    }

    /**
     * @notice Ban the accused for good and share their stakes equally among the honest. SETTLER, between the end of
     * the challenge time and the lapse.
     * @dev Shares are whole gwei. The rest, and all of it when nobody honest is left, goes to the treasury. Who is
     * banned by now (a cheat named as honest, too) shares nothing.
     * @param caseId an open case
     * @param cheats exactly as accused
     * @param honest exactly as accused
     */
    function executeBan(uint256 caseId, address[] calldata cheats, address[] calldata honest)
        external
        onlyRole(SETTLER)
        whenNotPaused
    {
        Case storage case_ = _cases[caseId];
        _requireOpen(caseId);
        if (block.timestamp < case_.executableAt) revert TooEarly(case_.executableAt);
        if (case_.digest != keccak256(abi.encode(cheats, honest))) revert WrongCaseLists(caseId);
        case_.state = CaseState.Executed;
        uint256 pool = 0;
        for (uint256 i = 0; i < cheats.length; ++i) {
            pool += _ban(caseId, cheats[i]);
        }
        _countSlash(pool);
        _share(caseId, pool, honest);
    }

    /**
     * @notice Drop an open case: nobody is banned, stakes are free again. GUARDIAN or admin. Works while paused.
     * @param caseId an open case
     */
    function acquit(uint256 caseId) external {
        _requireGuardian();
        _requireOpen(caseId);
        Case storage case_ = _cases[caseId];
        case_.state = CaseState.Acquitted;
        for (uint256 i = 0; i < case_.cheats.length; ++i) {
            --providers[case_.cheats[i]].openCases;
        }
        emit Acquitted(caseId);
    }

    /**
     * @notice A case as it stands in this block.
     * @param caseId the case
     * @return state Lapsed when it was left open too long
     * @return executableAt the first second in which it may be executed
     * @return lapsesAt the first second in which it no longer may
     * @return cheats the accused
     */
    function accusation(uint256 caseId)
        external
        view
        returns (CaseState state, uint256 executableAt, uint256 lapsesAt, address[] memory cheats)
    {
        Case storage case_ = _cases[caseId];
        return (caseState(caseId), case_.executableAt, case_.lapsesAt, case_.cheats);
    }

    /**
     * @notice A case's state in this block.
     * @param caseId the case
     * @return Lapsed when it was left open too long
     */
    function caseState(uint256 caseId) public view returns (CaseState) {
        Case storage case_ = _cases[caseId];
        if (case_.state == CaseState.Open && block.timestamp >= case_.lapsesAt) return CaseState.Lapsed;
        return case_.state;
    }

    /**
     * @notice What bans can still take in the current UTC day.
     * @return wei
     */
    function slashLeft() public view returns (uint256) {
        return block.timestamp / 1 days == _slashDay ? dailySlashCap - _slashedThatDay : dailySlashCap;
    }

    function _accuse(uint256 caseId, address[] calldata cheats, address[] calldata honest) private {
        Case storage case_ = _cases[caseId];
        if (case_.state != CaseState.None) revert WrongCaseState(caseId, caseState(caseId));
        if (cheats.length == 0) revert NobodyAccused();
        if (cheats.length * deposit > dailySlashCap) revert CaseTooLarge(cheats.length * deposit, dailySlashCap);
        _requireAscending(cheats);
        _requireAscending(honest);
        case_.digest = keccak256(abi.encode(cheats, honest));
        case_.executableAt = uint40(block.timestamp + challengeTime);
        case_.lapsesAt = uint40(block.timestamp + lapseTime);
        case_.state = CaseState.Open;
        case_.cheats = cheats;
        for (uint256 i = 0; i < cheats.length; ++i) {
            _freeze(cheats[i], case_.lapsesAt);
        }
        emit Accused(caseId, cheats, honest, case_.executableAt, case_.lapsesAt);
    }

    /// @dev Every earlier accusation has lapsed once frozenUntil is past: counting starts anew then.
    function _freeze(address account, uint40 until) private {
        Provider storage provider = providers[account];
        provider.openCases = isFrozen(account) ? provider.openCases + 1 : 1;
        provider.frozenUntil = until;
    }

    function _ban(uint256 caseId, address account) private returns (uint256 stake) {
        Provider storage provider = providers[account];
        if (provider.standing == Standing.Banned) return 0;
        stake = provider.stake;
        provider.stake = 0;
        provider.standing = Standing.Banned;
        staked -= uint128(stake);
        emit Banned(account, caseId, stake);
    }

    function _countSlash(uint256 stake) private {
        uint256 left = slashLeft();
        if (stake > left) revert DailyCapReached(stake, left);
        _slashDay = uint40(block.timestamp / 1 days);
        _slashedThatDay = uint96(dailySlashCap - left + stake);
    }

    function _share(uint256 caseId, uint256 pool, address[] calldata honest) private {
        uint256 sharers = 0;
        for (uint256 i = 0; i < honest.length; ++i) {
            if (!_banned(honest[i])) ++sharers;
        }
        // Whole gwei: the platform's books know no smaller unit of the coin.
        uint256 part = sharers == 0 ? 0 : pool / sharers / 1 gwei * 1 gwei;
        for (uint256 i = 0; i < honest.length && part > 0; ++i) {
            if (!_banned(honest[i])) _credit(caseId, honest[i], part);
        }
        uint256 rest = pool - part * sharers;
        if (rest > 0) _credit(caseId, treasury, rest);
        ethCredits += uint128(pool);
    }

    function _credit(uint256 caseId, address account, uint256 amount) private {
        ethCredit[account] += amount;
        emit StakeShared(caseId, account, amount);
    }

    function _banned(address account) private view returns (bool) {
        return providers[account].standing == Standing.Banned;
    }

    function _requireOpen(uint256 caseId) private view {
        CaseState state = caseState(caseId);
        if (state != CaseState.Open) revert WrongCaseState(caseId, state);
    }

    function _requireAscending(address[] calldata accounts) private pure {
        address last = address(0);
        for (uint256 i = 0; i < accounts.length; ++i) {
            if (accounts[i] <= last) revert NotAscending(accounts[i]);
            last = accounts[i];
        }
    }

    // ------------------------------------------------------------------------------------------------ guardian

    /// @notice Stop payments, registrations, settlements, accusations and bans; never exits or refunds.
    function pause() external {
        _requireGuardian();
        _pause();
    }

    /// @notice Lift a pause. Admin only: a stolen guardian's key can stop the platform, but not undo a stop.
    function unpause() external onlyRole(DEFAULT_ADMIN_ROLE) {
        _unpause();
    }

    function _requireGuardian() private view {
        if (!hasRole(GUARDIAN, msg.sender) && !hasRole(DEFAULT_ADMIN_ROLE, msg.sender)) {
            revert NotGuardian(msg.sender);
        }
    }

    /// @dev A stake in whole gwei; a cap that lets at least one ban through; a veto that ends before the lapse.
    function _check(Terms memory terms) private view {
        if (
            terms.treasury == address(0) || terms.deposit == 0 || terms.deposit % 1 gwei != 0
                || terms.dailySlashCap < terms.deposit || terms.lapseTime <= terms.challengeTime
                || terms.maxFeeBps > 10_000 || IERC20Metadata(terms.token).decimals() != 6
        ) revert BadTerms();
    }
}
