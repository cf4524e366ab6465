// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC1363} from "@openzeppelin/contracts/token/ERC20/extensions/ERC1363.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {Ownable, Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";

/**
 * @title DML, the token customers pay with
 * @notice Six decimals, so that one base unit is one micro-DML: the unit the platform's books are kept in.
 * There is no smaller unit on the chain, hence no dust that the books could not name.
 */
contract DMLToken is ERC20, ERC20Permit, ERC1363, Ownable2Step {
    /// @notice No more than this can ever exist (10^10 DML); it also fits the escrow's packed amounts (56 bits).
    uint256 public constant MAX_SUPPLY = 10_000_000_000 * 1e6;

    /// @notice Minting `requested` would pass the hard limit; only `left` can still be minted.
    error SupplyExceeded(uint256 requested, uint256 left);

    /**
     * @param owner the only account that may mint; it can hand that right on or renounce it
     * @param supply micro-DML minted to the owner at once
     */
    constructor(address owner, uint256 supply) ERC20("DML", "DML") ERC20Permit("DML") Ownable(owner) {
        _mintCapped(owner, supply);
    }

    /// @notice The number of decimals: 6, so that one base unit is one micro-DML.
    function decimals() public pure override returns (uint8) {
        return 6;
    }

    /**
     * @notice Create new tokens, never beyond MAX_SUPPLY. Only the owner.
     * @param to who gets them
     * @param amount in micro-DML
     */
    function mint(address to, uint256 amount) external onlyOwner {
        _mintCapped(to, amount);
    }

    function _mintCapped(address to, uint256 amount) private {
        uint256 left = MAX_SUPPLY - totalSupply();
        if (amount > left) revert SupplyExceeded(amount, left);
        _mint(to, amount);
    }
}
